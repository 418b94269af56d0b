//! Decoding messages of the log: the content must be about the aggregate that the subject names.

use events::{DecodeError, Event, SessionEvent, UserId, subjects};
use serde::de::DeserializeOwned;

const NAMES_ANOTHER: DecodeError = DecodeError::Inconsistent("the subject names another aggregate");

/// An event of a user.
pub fn user_event(subject: &str, payload: &[u8]) -> Result<Event, DecodeError> {
    let event = Event::from_json(payload)?;
    match subject == subjects::user_events(event.user_id()) {
        true => Ok(event),
        false => Err(NAMES_ANOTHER),
    }
}

/// An event of a session.
pub fn session_event(subject: &str, payload: &[u8]) -> Result<SessionEvent, DecodeError> {
    let event = SessionEvent::from_json(payload)?;
    match subject == subjects::session_events(event.after.user_id, event.after.id) {
        true => Ok(event),
        false => Err(NAMES_ANOTHER),
    }
}

/// A revocation of the user named by the last token of its subject.
pub fn revocation<R: DeserializeOwned>(
    user: &str,
    payload: &[u8],
) -> Result<(UserId, R), DecodeError> {
    let user = user.parse().map_err(|_| DecodeError::Inconsistent("the subject names nobody"))?;
    Ok((user, serde_json::from_slice(payload)?))
}
