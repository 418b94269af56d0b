//! Queries that must reflect a minimum position.

use events::Position;
use http::request::Parts;
use http::{HeaderName, Uri};

use super::POSITION;
use crate::problem::{Code, Problem};

/// Waits for the position in `?min_position=` or the header `Roster-Position`. `wait_for` returns whether the views
/// have reached it.
///
/// # Errors
/// As [`fresh_in`].
pub async fn fresh<Wait, E>(
    parts: &Parts,
    wait_for: impl FnOnce(Position) -> Wait,
) -> Result<(), Problem>
where
    Wait: Future<Output = Result<bool, E>>,
    Problem: From<E>,
{
    fresh_in(parts, &POSITION, wait_for).await
}

/// As [`fresh`], for a log whose positions are in the header `name`.
///
/// # Errors
/// [`Code::NotYet`], an error for an invalid position, and the errors of `wait_for`.
pub async fn fresh_in<Wait, E>(
    parts: &Parts,
    name: &HeaderName,
    wait_for: impl FnOnce(Position) -> Wait,
) -> Result<(), Problem>
where
    Wait: Future<Output = Result<bool, E>>,
    Problem: From<E>,
{
    let Some(position) = asked(parts, name)? else { return Ok(()) };
    if wait_for(position).await? {
        return Ok(());
    }
    Err(Problem::new(Code::NotYet)
        .detail(format!("the views have not reached position {position} yet")))
}

/// For calls whose only parameter is `min_position`, which [`fresh`] reads; any other is rejected.
///
/// # Errors
/// [`Code::InvalidParameter`].
pub fn only_min_position(uri: &Uri) -> Result<(), Problem> {
    let query = uri.query().unwrap_or_default();
    match form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name != "min_position") {
        None => Ok(()),
        Some(_) => Err(Problem::new(Code::InvalidParameter).detail("only min_position is known")),
    }
}

fn asked(parts: &Parts, name: &HeaderName) -> Result<Option<Position>, Problem> {
    let query = parts.uri.query().unwrap_or_default();
    let mut values = form_urlencoded::parse(query.as_bytes())
        .filter(|(name, _)| name == "min_position")
        .map(|(_, value)| value.into_owned());
    let parameter = match (values.next(), values.next()) {
        (None, _) => None,
        (Some(value), None) => Some(number(&value).ok_or_else(|| {
            Problem::new(Code::InvalidParameter).detail("min_position must be a number")
        })?),
        (Some(_), Some(_)) => {
            return Err(Problem::new(Code::InvalidParameter).detail("min_position is given twice"));
        }
    };
    let header = match parts.headers.get(name) {
        None => None,
        Some(value) => Some(value.to_str().ok().and_then(number).ok_or_else(|| {
            Problem::new(Code::InvalidHeader).detail(format!("{name} must be a number"))
        })?),
    };
    Ok(parameter.max(header))
}

fn number(text: &str) -> Option<Position> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if digits { text.parse().ok().map(Position) } else { None }
}
