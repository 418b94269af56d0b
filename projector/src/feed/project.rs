//! Mapping events of the log to events of the feed. Pure.
//!
//! The log may change with Roster; the feed may not. So every member is named here, and none is passed on implicitly.

use events::feed::{
    AllEnded, AllEndedReason, DeletedUser, DeletedUserData, EmailChange, EmailVerification,
    EndReason, EndedSessions, FeedEvent, Happened, ProfileChange, PublicSession, PublicUser,
    Registration, RolesChange, SessionData, SessionEnd, Status, StatusChange, UserChanged,
    UserData,
};
use events::{
    Actor, DecodeError, Envelope, Event, Fact, Position, Revision, RevocationReason, Session,
    SessionEvent, SessionFact, SessionsKept, Snapshot, StoredRevocation, Timestamp, User, UserFact,
    UserId,
};
use uuid::{Builder, Uuid};

/// The feed event of an event of a user.
///
/// # Errors
/// [`DecodeError`]: event and state contradict each other.
pub fn of_user(event: &Event, position: Position) -> Result<FeedEvent, DecodeError> {
    let happened = match (&event.fact, &event.after) {
        (UserFact::Deleted, Snapshot::Deleted(gone)) => {
            let user = DeletedUser { id: gone.id, deleted_at: gone.deleted_at };
            Happened::Deleted(DeletedUserData { user })
        }
        (fact, Snapshot::Present(user)) => changed(fact, public(user))?,
        (_, Snapshot::Deleted(_)) => {
            return Err(DecodeError::Inconsistent("the state is that of a deleted user"));
        }
    };
    Ok(published(event, position, happened))
}

fn changed(fact: &UserFact, user: PublicUser) -> Result<Happened, DecodeError> {
    Ok(match fact {
        UserFact::Registered { email, email_verified, full_name, roles, metadata, imported } => {
            let changed = Registration {
                email: email.clone(),
                email_verified: *email_verified,
                full_name: full_name.clone(),
                roles: roles.clone(),
                metadata: metadata.clone(),
                imported: *imported,
            };
            Happened::Registered(UserChanged { changed, user })
        }
        UserFact::ProfileChanged { full_name, metadata } => {
            let changed =
                ProfileChange { full_name: full_name.clone(), metadata: metadata.clone() };
            Happened::ProfileChanged(UserChanged { changed, user })
        }
        UserFact::RolesChanged { roles } => Happened::RolesChanged(UserChanged {
            changed: RolesChange { roles: roles.clone() },
            user,
        }),
        UserFact::Disabled => {
            let changed = StatusChange { status: Status::Disabled };
            Happened::Disabled(UserChanged { changed, user })
        }
        UserFact::Enabled => {
            let changed = StatusChange { status: Status::Active };
            Happened::Enabled(UserChanged { changed, user })
        }
        UserFact::PasswordChanged => Happened::PasswordChanged(UserData { user }),
        UserFact::EmailVerified => {
            let changed = EmailVerification { email_verified: true };
            Happened::EmailVerified(UserChanged { changed, user })
        }
        UserFact::EmailChanged { email } => Happened::EmailChanged(UserChanged {
            changed: EmailChange { email: email.clone() },
            user,
        }),
        UserFact::Deleted => {
            return Err(DecodeError::Inconsistent("a deletion that carries the state of a user"));
        }
    })
}

/// The feed event of an event of a session; `None` for a refresh, which happens often and informs nobody.
#[must_use]
pub fn of_session(event: &SessionEvent, position: Position) -> Option<FeedEvent> {
    let data = SessionData { session: session(&event.after) };
    let happened = match event.fact {
        SessionFact::Started { .. } => Happened::SessionStarted(data),
        SessionFact::Ended { .. } => Happened::SessionEnded(data),
        SessionFact::TheftDetected => Happened::TheftDetected(data),
        SessionFact::Refreshed { .. } => return None,
    };
    Some(published(event, position, happened))
}

/// The feed event of a revocation; `None` when it ends access tokens alone.
#[must_use]
pub fn of_revocation(
    user: UserId,
    stored: &StoredRevocation,
    position: Position,
    stored_at: Timestamp,
) -> Option<FeedEvent> {
    let except = match stored.revocation.sessions {
        SessionsKept::None => None,
        SessionsKept::Only { session, .. } => Some(session),
        SessionsKept::Alive { .. } => return None,
    };
    let cause = stored.cause.as_ref();
    let reason = cause.map(|cause| match cause.reason {
        RevocationReason::LoggedOut => AllEndedReason::LoggedOut,
        RevocationReason::PasswordChanged => AllEndedReason::PasswordChanged,
        RevocationReason::EmailProven => AllEndedReason::EmailProven,
        RevocationReason::Disabled => AllEndedReason::Disabled,
        RevocationReason::Deleted => AllEndedReason::Deleted,
        // It ends access tokens alone, so it does not get here.
        RevocationReason::RolesChanged => AllEndedReason::Other("roles_changed".to_owned()),
    });
    let sessions = EndedSessions { user_id: user, epoch: position, except, reason };
    Some(FeedEvent {
        id: cause.map_or_else(|| id_of_revocation(position), |cause| cause.id),
        time: cause.map_or(stored_at, |cause| cause.time),
        revision: Revision(position.0),
        position,
        actor: cause.map_or(Actor::System, |cause| cause.actor),
        command_id: cause.map(|cause| cause.command_id),
        correlation_id: cause.and_then(|cause| cause.correlation_id.clone()),
        causation_id: None,
        traceparent: cause.and_then(|cause| cause.traceparent.clone()),
        data_schema: None,
        happened: Happened::AllSessionsEnded(AllEnded { sessions }),
    })
}

/// The id of a revocation that was stored without one: the same at every reading.
fn id_of_revocation(position: Position) -> Uuid {
    let mut bytes = *b"rv.user.\0\0\0\0\0\0\0\0";
    for (byte, of) in bytes.iter_mut().skip(8).zip(position.0.to_be_bytes()) {
        *byte = of;
    }
    Builder::from_custom_bytes(bytes).into_uuid()
}

fn published<F: Fact>(event: &Envelope<F>, position: Position, happened: Happened) -> FeedEvent {
    FeedEvent {
        id: event.id,
        time: event.time,
        revision: event.revision(),
        position,
        actor: event.actor,
        command_id: Some(event.command_id),
        correlation_id: event.correlation_id.clone(),
        causation_id: event.causation_id.clone(),
        traceparent: event.traceparent.clone(),
        data_schema: None,
        happened,
    }
}

/// The public state of a user.
#[must_use]
pub fn public(user: &User) -> PublicUser {
    PublicUser {
        id: user.id,
        email: user.email.clone(),
        email_verified: user.email_verified,
        full_name: user.full_name.clone(),
        roles: user.roles.clone(),
        status: match user.status {
            events::Status::Active => Status::Active,
            events::Status::Disabled => Status::Disabled,
        },
        metadata: user.metadata.clone(),
        created_at: user.created_at,
        updated_at: user.updated_at,
    }
}

fn session(session: &Session) -> PublicSession {
    PublicSession {
        id: session.id,
        user_id: session.user_id,
        epoch: session.epoch,
        created_at: session.created_at,
        refreshed_at: session.refreshed_at,
        ends_at: session.ends_at,
        user_agent: session.user_agent.clone(),
        ip: session.ip.clone(),
        ended: session.ended.as_ref().map(|ended| SessionEnd {
            reason: match ended.reason {
                events::EndReason::Logout => EndReason::Logout,
                events::EndReason::Revoked => EndReason::Revoked,
                events::EndReason::Theft => EndReason::Theft,
            },
            at: ended.at,
        }),
    }
}
