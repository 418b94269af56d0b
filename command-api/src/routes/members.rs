//! Members of bodies: from JSON to values of the domain.

use events::{EmailAddress, Metadata, Status};
use serde_json::Value;
use service_kit::http::Fault;
use utoipa::ToSchema;

use crate::domain::{FullName, NewMetadata, Roles, parse_metadata};

/// `admin`, `operator`, `user`, or any other name.
#[derive(ToSchema)]
#[schema(pattern = "^[a-z][a-z0-9-]{1,31}$")]
#[expect(dead_code, reason = "a description")]
pub struct Role(String);

#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "a description")]
pub enum NewStatus {
    Active,
    Disabled,
}

pub fn parse_email(text: String) -> Result<EmailAddress, Fault> {
    EmailAddress::parse(&text).map_err(|why| ("email", why.to_string()))
}

/// A member that may be absent but not `null`.
#[expect(clippy::unnecessary_wraps, reason = "the form of a function that parses a member")]
pub fn parse_given(text: String) -> Result<Option<String>, Fault> {
    Ok(Some(text))
}

pub fn parse_full_name(text: Option<String>) -> Result<Option<FullName>, Fault> {
    text.map(FullName::parse).transpose()
}

/// In a merge patch: absent keeps the name, `null` removes it.
pub fn parse_new_full_name(text: Option<String>) -> Result<Option<Option<FullName>>, Fault> {
    parse_full_name(text).map(Some)
}

/// A list with a broken item is broken as a whole: the fault names the list.
pub fn parse_roles(value: Value) -> Result<Roles, Fault> {
    let wrong = || ("type", "must be a list of strings".to_owned());
    let Value::Array(items) = value else { return Err(wrong()) };
    let names = items.into_iter().map(|item| item.as_str().map(str::to_owned));
    Roles::parse(names.collect::<Option<_>>().ok_or_else(wrong)?)
}

pub fn parse_new_roles(value: Value) -> Result<Option<Roles>, Fault> {
    parse_roles(value).map(Some)
}

pub fn parse_nullable_roles(value: Value) -> Result<Option<Roles>, Fault> {
    if value.is_null() { Ok(None) } else { parse_new_roles(value) }
}

pub fn parse_status(text: String) -> Result<Status, Fault> {
    match text.as_str() {
        "active" => Ok(Status::Active),
        "disabled" => Ok(Status::Disabled),
        _ => Err(("enum", "must be active or disabled".to_owned())),
    }
}

pub fn parse_new_status(text: String) -> Result<Option<Status>, Fault> {
    parse_status(text).map(Some)
}

pub fn parse_given_metadata(value: Value) -> Result<Option<Metadata>, Fault> {
    parse_metadata(value).map(Some)
}

/// A merge patch on an object: an object, or `null` for an empty one.
pub fn parse_metadata_patch(value: Value) -> Result<Option<NewMetadata>, Fault> {
    match value {
        Value::Object(_) | Value::Null => Ok(Some(NewMetadata::Patch(value))),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(("type", "must be an object or null".to_owned()))
        }
    }
}
