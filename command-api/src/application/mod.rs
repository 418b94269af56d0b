//! Commands: load, decide, append, and know what came of it.

mod addresses;
mod idempotency;
mod import;
mod login;
mod passwords;
mod refresh_token;
mod restoring;
mod rights;
mod session_cap;
mod sessions;
mod unverified;
mod users;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use events::{Lineage, Position, Revision, User, UserState};
use service_kit::access::Access;
use service_kit::ambient;
use service_kit::commands::{
    ATTEMPTS_MAX, Failure, IdempotencyKeys, InFlight, LogError, Request, run_detached, settled,
};
use service_kit::links::Links;
use service_kit::mail_jobs::Mail;
use service_kit::security::{Kind, Outcome, SecurityEvent, SecurityRecorder};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::domain::{
    Broken, Candidate, Password, PasswordContext, PasswordRules, Rejection, SessionRules,
};
use crate::ports::throttle::{
    Admission, Counted, Refusal, Throttle, ThrottleError, Verdict, Watched, Whose,
};
use crate::ports::{
    HashClient, HashError, LogLineage, MailQueue, PasswordHash, PasswordHasher, SessionLog, UserLog,
};
pub use addresses::AccountProof;
pub use import::{Fate, HashGiven, Newcomer};
pub use passwords::LinkOwner;
pub use refresh_token::RefreshTokens;
pub use sessions::{Granted, Seeds};
pub use unverified::{Removal, UnusedSince};

/// What commands work with.
#[derive(Clone)]
pub struct Parts {
    /// Users.
    pub log: Arc<dyn UserLog>,
    /// Sessions.
    pub sessions: Arc<dyn SessionLog>,
    /// Which history the log is in.
    pub lineage: Arc<dyn LogLineage>,
    /// Mails.
    pub desk: Arc<dyn MailQueue>,
    /// Limits on attempts.
    pub throttle: Arc<dyn Throttle>,
    /// Passwords.
    pub hasher: Arc<dyn PasswordHasher>,
    /// Who tried to get in.
    pub recorder: SecurityRecorder,
    /// What a new password must fulfil.
    pub rules: PasswordRules,
    /// How long sessions live.
    pub session_rules: SessionRules,
    /// Refresh tokens.
    pub refresh_tokens: RefreshTokens,
    /// Links in mails.
    pub links: Links,
    /// How long a change of address can be undone and the address from before is reserved, in seconds.
    pub undo_link_s: u64,
    /// Random seeds.
    pub seeds: Seeds,
    /// What roles allow.
    pub access: Access,
    /// What answers do not tell.
    pub discretion: EnumerationPolicy,
    /// Keys of requests.
    pub keys: IdempotencyKeys,
    /// Commands under way.
    pub tasks: TaskTracker,
}

/// What answers do not tell about who has an account.
#[derive(Debug, Clone, Copy)]
pub struct EnumerationPolicy {
    /// A registration is alike for a free address and a taken one, and nobody logs in unverified.
    pub conceal_existing: bool,
    /// Answers that must not tell by their time come at a whole multiple of this.
    pub refusal_step: Duration,
}

impl EnumerationPolicy {
    /// Waits for the end of the step. Work of a few milliseconds more or less, and the time a busy machine
    /// adds, end within one step; only the number of steps can be told from outside.
    async fn pad_to_step(&self, began: Instant) {
        let taken = began.elapsed().as_millis();
        let steps = taken.checked_div(self.refusal_step.as_millis()).unwrap_or_default() + 1;
        let steps = u32::try_from(steps).unwrap_or(u32::MAX);
        tokio::time::sleep_until(began + self.refusal_step.saturating_mul(steps)).await;
    }
}

/// The commands on users and their sessions. Cheap to clone.
#[derive(Clone)]
pub struct Users {
    parts: Arc<Parts>,
    in_flight: InFlight,
    dead_sessions: session_cap::DeadSessions,
}

/// A command that was carried out, or found to be already.
#[derive(Debug, Clone, PartialEq)]
pub struct Done {
    /// The user after it; `None` after a deletion.
    pub user: Option<User>,
    /// Revision after it.
    pub revision: Revision,
    /// Position of its last event.
    pub position: Position,
}

/// Why a command was not carried out, or why nobody can say.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CommandError {
    /// A rule refuses it.
    #[error("refused: {0:?}")]
    Rejected(Rejection),
    /// Another user has the address.
    #[error("the address is taken")]
    EmailTaken,
    /// The key of the request made a user who is deleted.
    #[error("the key made a user who is deleted")]
    KeyOfDeleted,
    /// E-mail or password is wrong, or the user may not log in.
    #[error("credentials refused")]
    InvalidCredentials,
    /// The refresh token is not good.
    #[error("refresh token refused")]
    InvalidRefreshToken,
    /// The link of a mail is not good, any more or at all.
    #[error("link refused")]
    InvalidLink,
    /// The password that a caller had to repeat is wrong.
    #[error("wrong password")]
    WrongPassword,
    /// Verifying this address takes the password of the account, or a new one.
    #[error("password required")]
    PasswordRequired,
    /// The caller may not.
    #[error("not allowed")]
    Forbidden,
    /// The caller must first show that the address is theirs.
    #[error("address not verified")]
    Unverified,
    /// Tried too often.
    #[error("too many attempts: {}", .0.policy)]
    TooMany(Refusal),
    /// None of these: what any command of any service can meet.
    #[error(transparent)]
    Failed(#[from] Failure),
}

impl CommandError {
    /// A fault of Roster.
    fn internal(why: impl ToString) -> Self {
        Self::Failed(Failure::Internal(why.to_string()))
    }

    /// Too much to do; nothing was done.
    const fn overloaded() -> Self {
        Self::Failed(Failure::Overloaded)
    }
}

impl From<Rejection> for CommandError {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

impl From<LogError> for CommandError {
    fn from(error: LogError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<ThrottleError> for CommandError {
    fn from(error: ThrottleError) -> Self {
        Self::Failed(Failure::Unavailable(error.to_string()))
    }
}

impl From<HashError> for CommandError {
    fn from(error: HashError) -> Self {
        match error {
            HashError::Overloaded => Self::overloaded(),
            HashError::Failed(why) => Self::internal(why),
        }
    }
}

impl Users {
    /// Puts the commands together.
    pub fn new(parts: Parts) -> Self {
        Self {
            parts: Arc::new(parts),
            in_flight: InFlight::default(),
            dead_sessions: session_cap::DeadSessions::default(),
        }
    }

    /// What makes idempotency keys out of headers.
    pub fn keys(&self) -> &IdempotencyKeys {
        &self.parts.keys
    }

    /// The history that the log is in: to be asked before the log is.
    fn lineage(&self) -> Option<Lineage> {
        self.parts.lineage.current().map(|record| record.lineage)
    }

    fn log(&self) -> &dyn UserLog {
        self.parts.log.as_ref()
    }

    /// Compares a secret, as often as that is allowed. Nothing is told before it is counted: an answer
    /// that was not counted would be a free guess.
    async fn attempt<T>(
        &self,
        watched: &[Watched<'_>],
        compare: impl Future<Output = Result<T, CommandError>>,
    ) -> Result<T, CommandError> {
        let throttle = &self.parts.throttle;
        let ticket = match throttle.begin(watched, ambient::now()).await? {
            Admission::Go(ticket) => ticket,
            Admission::Refused(refusal) => {
                self.record_limited(refusal, watched.iter().find_map(Watched::whom));
                return Err(CommandError::TooMany(refusal));
            }
        };
        let compared = compare.await;
        let verdict = match &compared {
            Ok(_) => Verdict::Right,
            Err(CommandError::InvalidCredentials | CommandError::WrongPassword) => Verdict::Wrong,
            Err(_) => Verdict::Undecided,
        };
        throttle.finish(ticket, verdict, ambient::now()).await?;
        compared
    }

    /// Holds what a request demands of the user against what the log says of it. A deleted one has no revision to
    /// compare.
    fn hold(request: &Request, state: &UserState) -> Result<(), CommandError> {
        match state {
            UserState::Present(user) => {
                Ok(request.precondition.check(user.revision).map_err(Failure::from)?)
            }
            UserState::Absent | UserState::Deleted(_) => Ok(()),
        }
    }

    /// Counts what is limited by number alone.
    async fn count(&self, counted: Counted) -> Result<(), CommandError> {
        let allowed = self.parts.throttle.allow(counted, ambient::now()).await?;
        allowed.map_err(|refusal| {
            self.record_limited(refusal, counted.user().map(Whose::User));
            CommandError::TooMany(refusal)
        })
    }

    /// Puts something into the security record, within the present request.
    fn record(&self, event: SecurityEvent) {
        self.parts.recorder.record(event);
    }

    fn record_limited(&self, refusal: Refusal, whose: Option<Whose<'_>>) {
        let limited =
            SecurityEvent::new(Kind::AttemptLimited, Outcome::Refused).because(refusal.policy);
        self.record(match whose {
            Some(Whose::User(user)) => limited.about(user),
            Some(Whose::Email(email)) => limited.with_address(email.clone()),
            None => limited,
        });
    }

    /// Counts a request to register, before anything else is done about it.
    pub async fn count_registration(&self, from: IpAddr) -> Result<(), CommandError> {
        self.run_detached(|users| async move { users.count(Counted::RegistrationFrom(from)).await })
            .await
    }

    /// Counts a request to set a password by a link, before anything else is done about it.
    pub async fn count_password_set(&self, from: IpAddr) -> Result<(), CommandError> {
        self.run_detached(|users| async move { users.count(Counted::PasswordSetFrom(from)).await })
            .await
    }

    /// Validates a new password of a user.
    async fn validate_password(
        &self,
        client: HashClient,
        text: &str,
        user: &User,
    ) -> Result<Password, CommandError> {
        let email = users::stored_address(user)?;
        let context = PasswordContext { email: Some(&email), full_name: user.full_name.as_deref() };
        let refused = |(code, why)| Rejection::Invalid("new_password", code, why).into();
        let candidate = self.check_password_rules(text, &context).map_err(refused)?;
        self.rate_password(client, candidate).await?.map_err(refused)
    }

    /// The rules for a new password that are cheap to check, of somebody who may not be a user yet.
    pub fn check_password_rules(
        &self,
        text: &str,
        context: &PasswordContext<'_>,
    ) -> Result<Candidate, Broken> {
        Candidate::check(text, &self.parts.rules, context)
    }

    /// The last rule: whether it is easy to guess. Waits in the queue of the hashing threads.
    pub async fn rate_password(
        &self,
        client: HashClient,
        candidate: Candidate,
    ) -> Result<Result<Password, Broken>, CommandError> {
        Ok(self.parts.hasher.rate(client, candidate).await?)
    }

    /// Whether a hash that another system made can be stored and will verify.
    pub fn check_foreign(&self, hash: &PasswordHash) -> Result<(), Broken> {
        self.parts.hasher.check_foreign(hash)
    }

    /// Refuses what can wait while the log has no room for it.
    fn require_room(&self) -> Result<(), CommandError> {
        if self.log().has_headroom() { Ok(()) } else { Err(Failure::LogFull.into()) }
    }

    /// Asks for a mail. A link to a new password goes in as long as anything does: it is the owner's way in.
    async fn mail(&self, mail: Mail) -> Result<(), CommandError> {
        let opens = matches!(mail, Mail::ResetPassword { .. } | Mail::SetPassword { .. });
        if !opens && !self.parts.desk.has_headroom() {
            return Err(Failure::LogFull.into());
        }
        // An order has an id of its own: nothing can be in its way.
        Ok(settled(self.parts.desk.order(mail).await).map(drop)?)
    }

    /// Runs a command to its end whatever becomes of the connection it came over.
    async fn run_detached<T, F>(&self, command: impl FnOnce(Self) -> F) -> Result<T, CommandError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, CommandError>> + Send + 'static,
    {
        run_detached(&self.parts.tasks, command(self.clone())).await
    }
}
