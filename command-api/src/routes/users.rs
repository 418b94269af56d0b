//! `/api/v1/users/{user_id}`: the writes.

use axum::extract::{Path, State};
use axum::http::header::IF_MATCH;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use events::{Actor, Status, UserId};
use serde_json::Value;
use service_kit::http::{Fault, MergePatch, string};
use service_kit::problem::{Code, Problem};
use service_kit::tokens::Administrator;
use service_kit::user_read::revisions;

use super::AppState;
use super::auth::{full_name, without_secrets};
use super::request::Context;
use crate::domain::{Change, Roles};

pub async fn change(
    State(state): State<AppState>,
    Administrator(caller): Administrator,
    Path(user): Path<String>,
    context: Context,
    headers: HeaderMap,
    MergePatch(mut body): MergePatch,
) -> Result<Response, Problem> {
    let user = user_id(&user)?;
    let expected = revisions(&headers, IF_MATCH)?;
    let fingerprint = without_secrets(&body, &[]);
    let full_name = body.optional("full_name", full_name);
    let metadata = body.optional("metadata", patch_object);
    let roles = body.optional("roles", roles);
    let status = body.optional("status", status);
    let change = body.finish(|| Some(Change { full_name, metadata, roles, status, expected }))?;

    let respond_async = context.respond_async;
    let scope = caller.user.to_string();
    let request = context.request(&state.users, Actor::User(caller.user), &scope, &fingerprint);
    let done = state.users.change(user, change, request).await?;
    Ok(state.answer(StatusCode::OK, done, respond_async).await)
}

pub async fn delete(
    State(state): State<AppState>,
    Administrator(caller): Administrator,
    Path(user): Path<String>,
    context: Context,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let user = user_id(&user)?;
    let expected = revisions(&headers, IF_MATCH)?;
    let respond_async = context.respond_async;
    let scope = caller.user.to_string();
    let request = context.request(&state.users, Actor::User(caller.user), &scope, "");
    let done = state.users.delete(user, expected, request).await?;
    Ok(state.answer(StatusCode::NO_CONTENT, done, respond_async).await)
}

/// A string that is no id names no user.
fn user_id(text: &str) -> Result<UserId, Problem> {
    text.parse().map_err(|_| Problem::new(Code::NotFound))
}

/// A merge patch on an object: an object, or `null` for an empty one.
fn patch_object(value: Value) -> Result<Value, Fault> {
    match value {
        Value::Object(_) | Value::Null => Ok(value),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(("type", "must be an object or null".to_owned()))
        }
    }
}

fn roles(value: Value) -> Result<Roles, Fault> {
    let Value::Array(items) = value else {
        return Err(("type", "must be a list of strings".to_owned()));
    };
    let roles: Result<Vec<String>, Fault> = items.into_iter().map(string).collect();
    Roles::parse(roles?)
}

fn status(value: Value) -> Result<Status, Fault> {
    match string(value)?.as_str() {
        "active" => Ok(Status::Active),
        "disabled" => Ok(Status::Disabled),
        _ => Err(("enum", "must be active or disabled".to_owned())),
    }
}
