//! Queries that must reflect at least a position.

use axum::http::request::Parts;
use events::Position;
use service_kit::http::POSITION;
use service_kit::problem::{Code, Problem};

use super::AppState;

/// Waits for the position that `?min_position=` or the header `Roster-Position` asks for.
pub async fn fresh(parts: &Parts, state: &AppState) -> Result<(), Problem> {
    let Some(position) = asked(parts)? else { return Ok(()) };
    if state.reader.wait_for(position, state.query_wait).await? {
        return Ok(());
    }
    Err(Problem::new(Code::NotYet)
        .detail(format!("the views have not reached position {position} yet")))
}

fn asked(parts: &Parts) -> Result<Option<Position>, Problem> {
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
    let header = match parts.headers.get(POSITION) {
        None => None,
        Some(value) => Some(value.to_str().ok().and_then(number).ok_or_else(|| {
            Problem::new(Code::InvalidHeader).detail("Roster-Position must be a number")
        })?),
    };
    Ok(parameter.max(header))
}

fn number(text: &str) -> Option<Position> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if digits { text.parse().ok().map(Position) } else { None }
}
