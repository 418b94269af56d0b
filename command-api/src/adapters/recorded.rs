//! Which stored changes of a user are worth a security record. Told where changes are stored, so that no command can
//! forget it.

use events::{Event, UserFact};
use service_kit::security::{Kind, Outcome, SecurityEvent};

use crate::ports::Change;

/// What a stored change is recorded as.
pub fn records(change: &Change) -> impl Iterator<Item = SecurityEvent> {
    change.events.iter().filter_map(|event| {
        let kind = kind(event, change.link.is_some())?;
        let record = SecurityEvent::new(kind, Outcome::Succeeded);
        Some(record.about(change.user).by(event.actor))
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
        // The address of a new user belongs to nobody yet, and a call that makes one for somebody else is recorded.
        UserFact::Registered { .. } | UserFact::ProfileChanged { .. } | UserFact::EmailVerified => {
            None
        }
    }
}
