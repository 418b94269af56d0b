//! `POST /api/v1/users/import`: newline-delimited JSON in, one line of answer for each line.

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use deserr::Deserr;
use events::{EmailAddress, Metadata, Position, Timestamp, UserId};
use serde::Serialize;
use serde_json::Value;
use service_kit::ambient;
use service_kit::commands::{Failure, Request};
use service_kit::http::{CommandHeaders, Fault, Faults, Lines, NDJSON, Parsed};
use service_kit::openapi::Call;
use service_kit::openapi::ProblemSchema;
use service_kit::problem::{Code, Problem};
use service_kit::tokens::Administrator;
use utoipa::ToSchema;

use super::AppState;
use super::contract::{IN_FLIGHT, REFLECTED, REUSED, WRITE};
use super::members::{
    Role, parse_email, parse_given_metadata, parse_new_full_name, parse_nullable_roles,
};
use crate::application::{CommandError, HashGiven, UserToImport, Users};
use crate::domain::{FullName, Roles};
use crate::ports::{ImportOutcome, PasswordHash};

/// Most lines of one call.
const LINES_MAX: usize = 10_000;

/// What became of one line.
#[derive(Serialize, ToSchema)]
#[schema(as = ImportedLine)]
pub struct Line {
    /// Counted from 1.
    line: usize,
    /// `created`, `unchanged` or `rejected`.
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<String>, format = "uuid")]
    id: Option<UserId>,
    /// Of an `unchanged` user whose line has a `password_hash`: `kept` where the user has another one and keeps it,
    /// `missing` where the user has none and still has none. Absent where it is the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<String>)]
    password: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<ProblemSchema>)]
    error: Option<Problem>,
}

/// The answer to an import.
pub struct Report {
    /// Lines of JSON, one for each line that came, in their order.
    pub lines: String,
    /// How many were rejected for a reason that is not theirs: to be sent again.
    pub undecided: usize,
    /// The position that shows what was made.
    pub position: Position,
}

/// One line of an import. Systems that export users write `null` for what a user does not have.
#[derive(Deserr, ToSchema)]
#[deserr(error = Faults, deny_unknown_fields)]
#[serde(deny_unknown_fields)]
pub struct ImportLine {
    #[deserr(try_from(String) = parse_email -> Fault)]
    #[schema(value_type = String, format = Email, max_length = 254)]
    email: EmailAddress,
    #[deserr(default, try_from(Option<String>) = parse_new_full_name -> Fault)]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 200)]
    full_name: Option<Option<FullName>>,
    #[deserr(default, try_from(Value) = parse_nullable_roles -> Fault)]
    #[schema(nullable = false, value_type = Option<Vec<Role>>, min_items = 1, max_items = 16)]
    roles: Option<Roles>,
    #[deserr(default, try_from(Value) = parse_given_metadata -> Fault)]
    #[schema(value_type = Option<serde_json::Map<String, Value>>)]
    metadata: Option<Metadata>,
    #[deserr(default)]
    #[schema(nullable = false)]
    email_verified: Option<bool>,
    /// bcrypt, or a PHC string of argon2, scrypt or pbkdf2.
    #[deserr(default)]
    #[schema(nullable = false)]
    password_hash: Option<String>,
    #[deserr(default, try_from(Option<String>) = parse_past -> Fault)]
    #[schema(nullable = false, value_type = Option<String>, format = DateTime)]
    created_at: Option<Timestamp>,
}

/// Headers and errors of [`import`].
pub const IMPORT: Call = Call {
    errors: &[Code::Forbidden, IN_FLIGHT, REUSED, Code::BodyTooLarge],
    headers: WRITE,
    answer_headers: REFLECTED,
};

#[utoipa::path(
    post,
    path = "/api/v1/users/import",
    tag = "users",
    operation_id = "import_users",
    summary = "Bring users along, one JSON object (`ImportLine`) per line",
    request_body(content = String, content_type = "application/x-ndjson"),
    responses((status = 200, description = "One JSON object (`ImportedLine`) for each line, in their order", body = String, content_type = "application/x-ndjson")),
    security(("bearer" = []))
)]
pub async fn import(
    State(state): State<AppState>,
    Administrator(caller): Administrator,
    context: CommandHeaders,
    Lines(body): Lines,
) -> Result<Response, Problem> {
    let lines = lines_of(&body);
    if lines.len() > LINES_MAX {
        return Err(Problem::new(Code::BodyTooLarge)
            .detail(format!("at most {LINES_MAX} lines are accepted")));
    }
    let request = context.by(&caller, state.users.keys(), &String::from_utf8_lossy(&body));
    let report = import_lines(&state.users, &lines, 1, request).await?;
    let headers = [(CONTENT_TYPE, NDJSON)];
    let mut response = (StatusCode::OK, headers, Body::from(report.lines)).into_response();
    // Where every line was rejected there is nothing that a view could show.
    if report.position != Position::default() {
        state.reflect(&mut response, report.position, &context).await;
    }
    Ok(response)
}

/// The lines of a text, without the blank ones at its end.
pub fn lines_of(text: &[u8]) -> Vec<&[u8]> {
    let text = text.trim_ascii_end();
    if text.is_empty() {
        return Vec::new();
    }
    text.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line)).collect()
}

/// Imports lines, the first of which has the number `first`.
pub async fn import_lines(
    users: &Users,
    lines: &[&[u8]],
    first: usize,
    request: Request,
) -> Result<Report, CommandError> {
    let mut valid = Vec::new();
    let checked: Vec<Result<(), Problem>> =
        lines.iter().map(|line| parse_line(line, users).map(|user| valid.push(user))).collect();
    let imported = users.import(valid, request).await?;

    let mut outcomes = imported.outcomes.into_iter();
    let mut report = Report { lines: String::new(), undecided: 0, position: imported.position };
    for (line, checked) in (first..).zip(checked) {
        let outcome = match checked {
            Ok(()) => outcomes.next().map_or_else(|| Err(Problem::new(Code::Internal)), described),
            Err(problem) => Err(problem),
        };
        let answer = match outcome {
            Ok((status, id, password)) => {
                Line { line, status, id: Some(id), password, error: None }
            }
            Err(problem) => {
                report.undecided += usize::from(problem.code().status().is_server_error());
                Line { line, status: "rejected", id: None, password: None, error: Some(problem) }
            }
        };
        // Strings and numbers alone: this cannot fail to be JSON.
        report.lines.push_str(&serde_json::to_string(&answer).unwrap_or_default());
        report.lines.push('\n');
    }
    Ok(report)
}

type Described = Result<(&'static str, UserId, Option<&'static str>), Problem>;

/// Status, user and what became of the password hash, as the answer describes them.
fn described(outcome: Result<ImportOutcome, CommandError>) -> Described {
    match outcome {
        Ok(ImportOutcome::Created(user)) => Ok(("created", user, None)),
        Ok(ImportOutcome::Unchanged(user, hash)) => Ok((
            "unchanged",
            user,
            match hash {
                HashGiven::Same => None,
                HashGiven::Kept => Some("kept"),
                HashGiven::Missing => Some("missing"),
            },
        )),
        Ok(ImportOutcome::Taken) => Err(Problem::new(Code::EmailTaken)
            .detail("a user has the address and is not as this line says")),
        Err(CommandError::Failed(Failure::OutcomeUnknown)) => {
            Err(Problem::new(Code::OutcomeUnknown)
                .detail("the user may have been made; send the line again to learn"))
        }
        Err(error) => Err(error.into()),
    }
}

fn parse_line(line: &[u8], users: &Users) -> Result<UserToImport, Problem> {
    let mut body = Parsed::<ImportLine>::from_slice(line)?;
    let hash = body.member("/password_hash").and_then(Value::as_str).map(str::to_owned);
    if let Some(Err(fault)) = hash.map(|hash| users.check_foreign(&PasswordHash(hash))) {
        body.reject("/password_hash", fault);
    }
    let line = body.finish()?;
    Ok(UserToImport {
        email: line.email,
        full_name: line.full_name,
        roles: line.roles,
        metadata: line.metadata,
        email_verified: line.email_verified,
        password_hash: line.password_hash.map(PasswordHash),
        created_at: line.created_at,
    })
}

fn parse_past(text: Option<String>) -> Result<Option<Timestamp>, Fault> {
    let Some(text) = text else { return Ok(None) };
    let time = Timestamp::parse(&text).map_err(|why| ("format", why.to_string()))?;
    if ambient::now() < time {
        return Err(("future", "must not be in the future".to_owned()));
    }
    Ok(Some(time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_line_begins_none() {
        assert_eq!(lines_of(b""), Vec::<&[u8]>::new());
        assert_eq!(lines_of(b"\n"), Vec::<&[u8]>::new());
        assert_eq!(lines_of(b"a\r\nb"), [&b"a"[..], b"b"]);
        assert_eq!(lines_of(b"a\nb\r\n \n\n"), [&b"a"[..], b"b"]);
        assert_eq!(lines_of(b"a\n\nb\n"), [&b"a"[..], b"", b"b"]);
    }
}
