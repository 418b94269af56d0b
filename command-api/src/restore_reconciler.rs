//! Replays on a log restored from a backup the access that ended after the backup. It runs while the streams are
//! marked as incomplete, which stops every service.

use std::sync::Arc;

use events::{LinkPurpose, Session, UserId, subjects};
use service_kit::access::Access;
use service_kit::config::Settings;
use service_kit::event_log::{
    EventLog, Guard, THROTTLE_CLOSED_STREAM, THROTTLE_COUNTS_STREAM, THROTTLE_STREAM,
};
use service_kit::key_ring::Ring;
use service_kit::keys::APPLICATION_KEY_FILE;
use service_kit::lookup_keys::LookupKeys;
use service_kit::metrics::Metrics;
use service_kit::security::SecurityRecorder;
use service_kit::verification::VerificationError;
use tokio_util::task::TaskTracker;

use crate::adapters::{Buckets, NoLineage, Reached};
use crate::app::administrators::{Made, NewAdministrator, create};
use crate::app::{KeysOfUsers, Logs, StartError, users};
use crate::application::{CommandError, Users};
use crate::domain::Rejection;

/// The changes of a user after the backup that took access away.
#[derive(Debug, Clone, Copy, Default)]
pub struct Lost<'a> {
    /// Whether the user was deleted.
    pub deleted: bool,
    /// Whether the user is disabled.
    pub disabled: bool,
    /// The roles that the user has, if they changed.
    pub roles: Option<&'a [String]>,
    /// The sealed credential, if the password changed.
    pub credential: Option<&'a [u8]>,
    /// Whether the user's sessions and access tokens ended.
    pub access: bool,
}

/// Works on a log that no other process writes to.
pub struct RestoreReconciler {
    users: Users,
}

impl RestoreReconciler {
    /// Opens the streams as they are. `later` are the keys that changes after the backup are sealed with, if they
    /// differ from those of the backup; they only open.
    ///
    /// # Errors
    /// [`StartError`]: a key is missing, or a setting is not valid.
    pub fn new(
        settings: &Settings,
        log: &impl Fn(&str) -> EventLog,
        later: Option<&Ring>,
    ) -> Result<Self, StartError> {
        let secrets = &settings.secrets.dir;
        let ring = Ring::read(&secrets.join(APPLICATION_KEY_FILE))?;
        let ring = match later {
            Some(later) => ring.opening_also(later),
            None => ring,
        };
        let keys = KeysOfUsers { application: ring.into(), lookup: LookupKeys::read(secrets)? };
        let access: Access = settings.access.roles.parse().map_err(VerificationError::Access)?;
        let logs = Logs {
            users: log(subjects::USERS_STREAM),
            sessions: log(subjects::SESSIONS_STREAM),
            mails: log(subjects::MAILS_STREAM),
            buckets: Buckets {
                attempts: log(THROTTLE_STREAM),
                closed: log(THROTTLE_CLOSED_STREAM),
                counts: log(THROTTLE_COUNTS_STREAM),
            },
            feed: None,
            recorder: SecurityRecorder::off(),
            lineage: Arc::new(NoLineage),
            reached: Reached::default(),
        };
        let (metrics, tasks) = (Metrics::new("restore"), TaskTracker::new());
        Ok(Self { users: users(settings, keys, access, logs, &metrics, tasks)? })
    }

    /// Creates an administrator.
    ///
    /// # Errors
    /// A text for the operator.
    pub async fn create_administrator(&self, new: NewAdministrator<'_>) -> Result<Made, String> {
        create(&self.users, new).await
    }

    /// Takes from a user what was taken after the backup; `false` if the backup does not contain the user.
    ///
    /// # Errors
    /// A text for the operator: some of it may be done; run it again.
    pub async fn take(&self, user: UserId, lost: Lost<'_>) -> Result<bool, String> {
        self.take_all(user, lost).await.map_err(|error| {
            if matches!(error, CommandError::Rejected(Rejection::LastAdmin)) {
                return format!(
                    "{user} is the only administrator of the backup and was none any more: set ROSTER_ADMIN_EMAIL \
                     and ROSTER_ADMIN_PASSWORD for another one, and run it again"
                );
            }
            format!("{user}: {error}")
        })
    }

    async fn take_all(&self, user: UserId, lost: Lost<'_>) -> Result<bool, CommandError> {
        if !self.users.is_known(user).await? {
            return Ok(false);
        }
        if lost.deleted {
            self.users.delete_again(user).await?;
            return Ok(true);
        }
        if lost.disabled || lost.roles.is_some() {
            self.users.take_rights(user, lost.disabled, lost.roles).await?;
        }
        if let Some(credential) = lost.credential {
            self.users.replace_password(user, credential).await?;
        }
        if lost.access {
            self.users.end_access(user).await?;
        }
        Ok(true)
    }

    /// Ends live sessions in one batch of at most some hundred.
    ///
    /// # Errors
    /// A text for the operator: none of them has ended, or the outcome is unknown.
    pub async fn end_sessions(&self, sessions: Vec<(Session, Guard)>) -> Result<(), String> {
        self.users.end_together(sessions).await.map_err(|error| error.to_string())
    }

    /// Voids the valid link in a mail; `false` if there is none.
    ///
    /// # Errors
    /// A text for the operator.
    pub async fn void_link(&self, purpose: LinkPurpose, user: UserId) -> Result<bool, String> {
        self.users.void_link(purpose, user).await.map_err(|error| error.to_string())
    }
}
