//! What a record says.

use std::borrow::Cow;
use std::net::IpAddr;

use events::{Actor, EmailAddress, SessionId, Timestamp, UserId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::subject;
use crate::ambient;
use crate::keys::SecretKey;
use crate::trace;

macro_rules! kinds {
    ($($(#[doc = $doc:literal])* $kind:ident = $name:literal,)*) => {
        /// What happened. The names are on the wire and never get another meaning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Kind { $($(#[doc = $doc])* #[serde(rename = $name)] $kind,)* }

        impl Kind {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$kind),*];

            /// Its name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$kind => $name,)* }
            }
        }
    };
}

kinds! {
    /// A login.
    Login = "login",
    /// A user repeated the password and it was wrong.
    PasswordCheck = "password-check",
    /// A limit on attempts refused something; the reason is the name of the limit.
    AttemptLimited = "attempt-limited",
    /// Somebody asked for a link to a new password.
    PasswordResetRequested = "password-reset-requested",
    /// A password was set by a link.
    PasswordReset = "password-reset",
    /// A user changed the password.
    PasswordChanged = "password-changed",
    /// A user has another address.
    EmailChanged = "email-changed",
    /// A user has other roles.
    RolesChanged = "roles-changed",
    /// A user may not log in any more.
    UserDisabled = "user-disabled",
    /// A user may log in again.
    UserEnabled = "user-enabled",
    /// A user was deleted.
    UserDeleted = "user-deleted",
    /// A refresh token that had been replaced came back, and its session was ended.
    RefreshTokenTheft = "refresh-token-theft",
    /// A call about other users, or one that the caller may not make.
    AdministrativeCall = "administrative-call",
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It was done.
    Succeeded,
    /// It was not.
    Refused,
    /// The service failed: nobody can say.
    Unknown,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 3] = [Self::Succeeded, Self::Refused, Self::Unknown];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
        }
    }
}

/// Something to be recorded. Who and where is known from the request.
#[derive(Debug, Clone)]
pub struct SecurityEvent {
    pub(super) kind: Kind,
    pub(super) outcome: Outcome,
    reason: Option<Cow<'static, str>>,
    operation: Option<String>,
    user: Option<UserId>,
    email: Option<EmailAddress>,
    actor: Option<Actor>,
    session: Option<SessionId>,
}

impl SecurityEvent {
    /// Of a kind, with what came of it.
    #[must_use]
    pub const fn new(kind: Kind, outcome: Outcome) -> Self {
        Self {
            kind,
            outcome,
            reason: None,
            operation: None,
            user: None,
            email: None,
            actor: None,
            session: None,
        }
    }

    /// Why, as a word of this code and never of a client.
    #[must_use]
    pub fn because(self, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { reason: Some(reason.into()), ..self }
    }

    /// By which call: method and template of the route.
    #[must_use]
    pub fn operation(self, operation: String) -> Self {
        Self { operation: Some(operation), ..self }
    }

    /// Whom it is about.
    #[must_use]
    pub fn about(self, user: UserId) -> Self {
        Self { user: Some(user), ..self }
    }

    /// Whose address was given. It is hashed, and only where the user is not known.
    #[must_use]
    pub fn with_address(self, email: EmailAddress) -> Self {
        Self { email: Some(email), ..self }
    }

    /// Who did it, where that is not the caller of the request.
    #[must_use]
    pub const fn by(mut self, actor: Actor) -> Self {
        self.actor = Some(actor);
        self
    }

    /// In which session, where that is not the caller's.
    #[must_use]
    pub const fn in_session(mut self, session: SessionId) -> Self {
        self.session = Some(session);
        self
    }

    /// The record of it, made within the request that it is a part of.
    pub(super) fn record(self, key: Option<&SecretKey>) -> SecurityRecord {
        let scope = trace::current();
        let requester = scope.as_ref().map(|scope| &scope.requester);
        let caller = requester.and_then(|requester| requester.caller());
        let device = requester.and_then(|requester| requester.device());
        let anonymous = || caller.map_or(Actor::Anonymous, |(user, _)| Actor::User(user));
        let hash = |email: &EmailAddress| {
            key.map(|key| key.mac_hex(&[b"address", email.canonical().as_bytes()]))
        };
        let address_key = match self.user {
            Some(_) => None,
            None => self.email.as_ref().and_then(hash),
        };
        SecurityRecord {
            id: ambient::new_uuid(),
            time: ambient::now(),
            kind: self.kind,
            outcome: self.outcome,
            reason: self.reason,
            operation: self.operation,
            user_id: self.user,
            address_key,
            actor: self.actor.unwrap_or_else(anonymous),
            session_id: self.session.or(caller.map(|(_, session)| session)),
            ip: device.map(|device| device.ip),
            user_agent: device.and_then(|device| device.user_agent.clone()),
            request_id: scope.map(|scope| scope.request_id),
            count: 1,
        }
    }
}

/// A record as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityRecord {
    /// Its id.
    pub id: Uuid,
    /// When it happened; of several, the last.
    pub time: Timestamp,
    /// What happened.
    pub kind: Kind,
    /// What came of it.
    pub outcome: Outcome,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<Cow<'static, str>>,
    /// Method and template of the route, of an administrative call.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub operation: Option<String>,
    /// Whom it is about.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub user_id: Option<UserId>,
    /// Keyed hash of the address that was given, where the user is not known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub address_key: Option<String>,
    /// Who did it: the id of a user, `system`, or `anonymous`.
    pub actor: Actor,
    /// The session of the caller.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub session_id: Option<SessionId>,
    /// Where the client is.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ip: Option<IpAddr>,
    /// What it calls itself.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub user_agent: Option<String>,
    /// The request.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub request_id: Option<String>,
    /// How often it happened: more than once where repetitions within a minute were put together.
    #[serde(skip_serializing_if = "is_one", default = "one")]
    pub count: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
const fn is_one(count: &u64) -> bool {
    *count == 1
}

const fn one() -> u64 {
    1
}

impl SecurityRecord {
    /// Under whom it is filed: the one whose address and device it holds.
    #[must_use]
    pub const fn filed_under(&self) -> Option<UserId> {
        match self.actor {
            Actor::User(user) => Some(user),
            Actor::Anonymous | Actor::System => self.user_id,
        }
    }

    /// The subject that it is stored on.
    #[must_use]
    pub fn subject(&self) -> String {
        subject(self.filed_under(), self.id)
    }
}
