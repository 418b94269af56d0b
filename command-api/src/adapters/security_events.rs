//! Which stored changes of a user go into the security record. The adapter that stores changes records them, so that
//! no command can forget to.

use events::{Event, UserFact};
use service_kit::security::{Kind, Outcome, SecurityEvent};

use crate::ports::UserChange;

/// The security events of a stored change.
pub fn security_events(change: &UserChange) -> impl Iterator<Item = SecurityEvent> {
    change.events.iter().filter_map(|event| {
        let kind = kind(event, change.further.link.is_some())?;
        let record = SecurityEvent::new(kind, Outcome::Succeeded);
        Some(record.about(change.id).by(event.actor))
    })
}

const fn kind(event: &Event, is_by_link: bool) -> Option<Kind> {
    match event.fact {
        UserFact::PasswordChanged if is_by_link => Some(Kind::PasswordReset),
        UserFact::PasswordChanged => Some(Kind::PasswordChanged),
        UserFact::EmailChanged { .. } => Some(Kind::EmailChanged),
        UserFact::RolesChanged { .. } => Some(Kind::RolesChanged),
        UserFact::Disabled => Some(Kind::UserDisabled),
        UserFact::Enabled => Some(Kind::UserEnabled),
        UserFact::Deleted => Some(Kind::UserDeleted),
        // A new user's address is not proven to be theirs, and the call of an administrator who creates one is recorded.
        UserFact::Registered { .. } | UserFact::ProfileChanged { .. } | UserFact::EmailVerified => {
            None
        }
    }
}
