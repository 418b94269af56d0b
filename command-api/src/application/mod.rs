//! Commands on users and their sessions: load, decide, append, and know the outcome.

mod addresses;
mod authority;
mod idempotency;
mod import;
mod login;
mod passwords;
mod refresh_token;
mod restoring;
mod session_cap;
mod sessions;
mod unverified;
mod users;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use events::{Lineage, Snapshot, User, UserState};
use service_kit::access::Access;
use service_kit::ambient;
use service_kit::commands::{
    self, CommandRunner, Executed, Failure, IdempotencyKeys, LogError, Request, settled,
};
use service_kit::links::Links;
use service_kit::mail_jobs::Mail;
use service_kit::security::{Kind, Outcome, SecurityEvent, SecurityRecorder};
use tokio::time::Instant;

use crate::domain::{
    Candidate, Password, PasswordContext, PasswordRules, Rejection, SessionRules, Violation,
};
use crate::ports::throttle::{
    AccountRef, Admission, AttemptKey, RateKey, Refusal, Throttle, ThrottleError, Verdict,
};
use crate::ports::{
    HashClient, HashError, LogLineage, MailQueue, PasswordHash, PasswordHasher, SessionLog,
    UserChange, UserLog,
};
pub use addresses::AccountProof;
pub use import::{HashGiven, UserToImport};
pub use passwords::LinkOwner;
pub use refresh_token::RefreshTokens;
pub use sessions::{Granted, Seeds};
pub use unverified::{Removal, UnusedSince};

/// What commands depend on.
#[derive(Clone)]
pub struct Dependencies {
    /// Users.
    pub log: Arc<dyn UserLog>,
    /// Sessions.
    pub sessions: Arc<dyn SessionLog>,
    /// The current history of the log.
    pub lineage: Arc<dyn LogLineage>,
    /// Mails.
    pub mails: Arc<dyn MailQueue>,
    /// Limits on attempts.
    pub throttle: Arc<dyn Throttle>,
    /// Passwords.
    pub hasher: Arc<dyn PasswordHasher>,
    /// The security record.
    pub recorder: SecurityRecorder,
    /// The rules for new passwords.
    pub rules: PasswordRules,
    /// How long sessions live.
    pub session_rules: SessionRules,
    /// Refresh tokens.
    pub refresh_tokens: RefreshTokens,
    /// Links in mails.
    pub links: Links,
    /// How long a change of address can be undone and the previous address is reserved, in seconds.
    pub undo_link_s: u64,
    /// Random seeds of sessions.
    pub seeds: Seeds,
    /// The permissions of roles.
    pub access: Access,
    /// What answers must not reveal.
    pub enumeration: EnumerationPolicy,
    /// Idempotency keys of requests.
    pub keys: IdempotencyKeys,
    /// Runs the commands.
    pub runner: CommandRunner,
}

/// What answers must not reveal about who has an account.
#[derive(Debug, Clone, Copy)]
pub struct EnumerationPolicy {
    /// A registration gets the same answer for a free and a taken address, and nobody logs in unverified.
    pub conceal_existing: bool,
    /// Answers whose time must reveal nothing are sent after a whole multiple of this.
    pub refusal_step: Duration,
}

impl EnumerationPolicy {
    /// Waits for the end of the step. A few milliseconds of work more or less, and the delays of a busy machine, end
    /// within one step; only the number of steps is visible from outside.
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
    deps: Arc<Dependencies>,
    dead_sessions: session_cap::DeadSessions,
}

/// The result of a command; the state is a deletion after a user was deleted.
pub type Done = commands::Done<Snapshot>;

/// Why a command was not carried out, or that its outcome is unknown.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CommandError {
    /// A rule rejects it.
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
    /// The refresh token is not valid.
    #[error("refresh token refused")]
    InvalidRefreshToken,
    /// The link from a mail is not valid, or no longer.
    #[error("link refused")]
    InvalidLink,
    /// The password that a caller had to repeat is wrong.
    #[error("wrong password")]
    WrongPassword,
    /// Verifying this address needs the password of the account, or a new one.
    #[error("password required")]
    PasswordRequired,
    /// The caller lacks the permission.
    #[error("not allowed")]
    Forbidden,
    /// The caller's address must be verified first.
    #[error("address not verified")]
    Unverified,
    /// Tried too often.
    #[error("too many attempts: {}", .0.policy)]
    TooMany(Refusal),
    /// A failure that any command of any service can have.
    #[error(transparent)]
    Failed(#[from] Failure),
}

impl CommandError {
    /// A bug in Roster.
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
    /// The commands on these dependencies.
    pub fn new(deps: Dependencies) -> Self {
        Self { deps: Arc::new(deps), dead_sessions: session_cap::DeadSessions::default() }
    }

    /// What makes idempotency keys out of headers.
    pub fn keys(&self) -> &IdempotencyKeys {
        &self.deps.keys
    }

    /// The current history of the log. Read it before the log.
    fn lineage(&self) -> Option<Lineage> {
        self.deps.lineage.current().map(|record| record.lineage)
    }

    fn log(&self) -> &dyn UserLog {
        self.deps.log.as_ref()
    }

    /// Carries a command on a user out.
    async fn execute<D>(
        &self,
        request: &Request,
        decide: impl FnMut() -> D,
    ) -> Result<Executed<Snapshot>, CommandError>
    where
        D: Future<Output = Result<UserChange, CommandError>>,
    {
        self.deps.runner.run(self.log(), request, decide).await
    }

    /// Carries it out, or answers a repetition with the earlier result.
    async fn execute_or_earlier<D>(
        &self,
        request: &Request,
        decide: impl FnMut() -> D,
    ) -> Result<Done, CommandError>
    where
        D: Future<Output = Result<UserChange, CommandError>>,
    {
        // Erased since: the answer from then must not be given again.
        self.execute(request, decide).await?.done_or(|| Rejection::NoSuchUser.into())
    }

    /// Compares a secret within the limits on attempts. The answer waits until the attempt is counted: otherwise it
    /// would be a free guess.
    async fn attempt<T>(
        &self,
        keys: &[AttemptKey<'_>],
        compare: impl Future<Output = Result<T, CommandError>>,
    ) -> Result<T, CommandError> {
        let throttle = &self.deps.throttle;
        let ticket = match throttle.begin(keys, ambient::now()).await? {
            Admission::Go(ticket) => ticket,
            Admission::Refused(refusal) => {
                self.record_limited(refusal, keys.iter().find_map(AttemptKey::account));
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

    /// Checks the precondition of a request. A deleted user has no revision to compare.
    fn check_precondition(request: &Request, state: &UserState) -> Result<(), CommandError> {
        match state {
            UserState::Present(user) => {
                Ok(request.precondition.check(user.revision).map_err(Failure::from)?)
            }
            UserState::Absent | UserState::Deleted(_) => Ok(()),
        }
    }

    /// Counts one request against a rate limit.
    async fn count(&self, key: RateKey) -> Result<(), CommandError> {
        let allowed = self.deps.throttle.allow(key, ambient::now()).await?;
        allowed.map_err(|refusal| {
            self.record_limited(refusal, key.user().map(AccountRef::User));
            CommandError::TooMany(refusal)
        })
    }

    /// Adds an event to the security record, with the context of the current request.
    fn record(&self, event: SecurityEvent) {
        self.deps.recorder.record(event);
    }

    fn record_limited(&self, refusal: Refusal, account: Option<AccountRef<'_>>) {
        let limited =
            SecurityEvent::new(Kind::AttemptLimited, Outcome::Refused).because(refusal.policy);
        self.record(match account {
            Some(AccountRef::User(user)) => limited.about(user),
            Some(AccountRef::Email(email)) => limited.with_address(email.clone()),
            None => limited,
        });
    }

    /// Counts a registration, before anything else is done with it.
    pub async fn count_registration(&self, from: IpAddr) -> Result<(), CommandError> {
        self.run_detached(|users| async move { users.count(RateKey::RegistrationFrom(from)).await })
            .await
    }

    /// Counts a request to set a password by a link, before anything else is done with it.
    pub async fn count_password_set(&self, from: IpAddr) -> Result<(), CommandError> {
        self.run_detached(|users| async move { users.count(RateKey::PasswordSetFrom(from)).await })
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

    /// Checks the cheap rules for a new password, of a user who may not exist yet.
    pub fn check_password_rules(
        &self,
        text: &str,
        context: &PasswordContext<'_>,
    ) -> Result<Candidate, Violation> {
        Candidate::check(text, &self.deps.rules, context)
    }

    /// Checks the last rule, that it is hard to guess. Waits in the queue of the hashing threads.
    pub async fn rate_password(
        &self,
        client: HashClient,
        candidate: Candidate,
    ) -> Result<Result<Password, Violation>, CommandError> {
        Ok(self.deps.hasher.rate(client, candidate).await?)
    }

    /// Checks that a hash made by another system can be stored and verified.
    pub fn check_foreign(&self, hash: &PasswordHash) -> Result<(), Violation> {
        self.deps.hasher.check_foreign(hash)
    }

    /// Refuses a change that can wait while the log has no headroom.
    fn require_room(&self) -> Result<(), CommandError> {
        if self.log().has_headroom() { Ok(()) } else { Err(Failure::LogFull.into()) }
    }

    /// Enqueues a mail. Links to a new password may use the reserved room: they are the owner's way in.
    async fn mail(&self, mail: Mail) -> Result<(), CommandError> {
        let opens = matches!(mail, Mail::ResetPassword { .. } | Mail::SetPassword { .. });
        if !opens && !self.deps.mails.has_headroom() {
            return Err(Failure::LogFull.into());
        }
        // Each job has its own id, so there is no conflict.
        Ok(settled(self.deps.mails.enqueue(mail).await).map(drop)?)
    }

    /// Runs a command to its end even if its connection is closed.
    async fn run_detached<T, F>(&self, command: impl FnOnce(Self) -> F) -> Result<T, CommandError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, CommandError>> + Send + 'static,
    {
        self.deps.runner.detached(command(self.clone())).await
    }
}
