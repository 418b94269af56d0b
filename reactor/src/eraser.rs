//! The erasure loop: a deleted user is removed from the streams, down to the tombstone; a replaced password is removed
//! at once.
//!
//! Everything here is idempotent and may be run by two processes at once, or again after a crash anywhere. What to
//! erase is looked up in the streams each time, and a task is only done when nothing is found. Two kinds of message
//! stay, because others depend on them: the last one of a subject that is written again under a guard (the tombstone,
//! the empty credential), and the last one of a stream, which shows readers where it ends.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use events::{
    CommandId, Fact, Position, SessionErasure, Timestamp, UserFact, UserId, feed, subjects,
};
use service_kit::ambient;
use service_kit::event_log::{
    Append, ConsumerSpec, EVENT_TYPE_HEADER, EventLog, Outcome, ReadError, Task, Write,
};
use service_kit::metrics::ErasureMetrics;
use service_kit::security::records_of;
use tokio::time::Instant;

use crate::mailer::age;
use crate::turns::{Ends, Turns};

/// First pause before a pending erasure is continued; doubles each time.
const PUT_OFF_FIRST: Duration = Duration::from_secs(1);
/// Longest such pause.
const PUT_OFF_MAX: Duration = Duration::from_secs(60);
/// How often the server is told that a long erasure is in progress; well below the time after which it would deliver
/// the task to another reactor.
const STILL_AT_IT: Duration = Duration::from_secs(5);

/// Erases deleted users and replaced passwords.
pub(crate) struct Eraser {
    pub users: EventLog,
    pub sessions: EventLog,
    pub feed: EventLog,
    pub snapshots: EventLog,
    pub security: EventLog,
    /// The consumer of the messages that lead to erasures.
    pub causes: ConsumerSpec,
    /// How long after a deletion its user is searched for once more.
    pub second_look: Duration,
    pub metrics: ErasureMetrics,
    /// Limits erasing to one message at a time.
    pub turns: Turns,
    /// Why pending tasks wait, and how far long ones are, for readiness. Losing it loses only the reason.
    pub waiting: Mutex<BTreeMap<Position, String>>,
}

/// The kind of erasure that a message leads to.
enum Cause {
    /// A user was deleted.
    Deletion(UserId),
    /// A new credential was written.
    Credential,
    /// Nothing to erase.
    Nothing,
}

/// The progress of an erasure.
enum Progress {
    Done,
    /// It has to be continued later.
    Later(Duration, &'static str),
}

/// Why an erasure failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Log(#[from] ReadError),
    #[error("the event has no type")]
    NoType,
    #[error("the subject names nobody")]
    Nobody,
    #[error("the record of the erasure cannot be written: {0:?}")]
    Record(Outcome),
    #[error("the record of the erasure cannot be JSON")]
    Json(#[from] serde_json::Error),
}

/// A task in progress.
struct Sweep<'a> {
    task: &'a Task,
    told: Instant,
    /// Messages erased so far.
    erased: u64,
}

impl Eraser {
    /// Works on one task as far as possible now.
    pub(crate) async fn carry_out(&self, task: Task) {
        let position = task.position;
        let acknowledged = match self.attempt(&task).await {
            Ok(Progress::Done) => {
                self.waiting().remove(&position);
                task.ack().await
            }
            Ok(Progress::Later(pause, why)) => {
                tracing::debug!(%position, why, "an erasure is pending; continuing later");
                self.waiting().insert(position, why.to_owned());
                task.nak(pause).await
            }
            Err(failure) => {
                tracing::warn!(error = %failure, %position, "an erasure failed; retrying later");
                self.waiting().insert(position, failure.to_string());
                let pause = pause(task.deliveries);
                task.nak(pause).await
            }
        };
        if let Err(error) = acknowledged {
            tracing::warn!(%error, %position, "cannot acknowledge an erasure; it may be repeated");
        }
    }

    /// The oldest message that is not done, and when it was stored.
    pub(crate) async fn oldest(&self) -> Result<Option<(Position, Timestamp)>, String> {
        let backlog = self.users.verify_consumer(&self.causes).await.map_err(|e| e.to_string())?;
        if backlog.pending == 0 && backlog.under_way == 0 {
            return Ok(None);
        }
        let mut oldest = None;
        for filter in [subjects::USER_EVENTS_FILTER, subjects::CREDENTIALS_FILTER] {
            let next = self.users.next(filter, backlog.acknowledged).await;
            let next = next.map_err(|e| e.to_string())?.map(|next| (next.position, next.stored_at));
            oldest = [oldest, next].into_iter().flatten().min();
        }
        Ok(oldest)
    }

    /// Why the erasure for a position is pending, if this process knows.
    pub(crate) fn reason(&self, position: Position) -> Option<String> {
        self.waiting().get(&position).cloned()
    }

    async fn attempt(&self, task: &Task) -> Result<Progress, Failure> {
        let mut sweep = Sweep { task, told: Instant::now(), erased: 0 };
        match cause(task)? {
            Cause::Nothing => Ok(Progress::Done),
            Cause::Credential => {
                let end = task.position;
                self.before(&self.users, task.subject(), end, &mut sweep).await?;
                if sweep.erased > 0 {
                    self.metrics.credential_erased();
                }
                Ok(Progress::Done)
            }
            Cause::Deletion(user) => {
                let progress = self.user(user, &mut sweep).await?;
                if matches!(progress, Progress::Done) {
                    self.metrics.user_erased();
                    tracing::info!(position = %task.position, "a deleted user is erased");
                }
                Ok(progress)
            }
        }
    }

    /// Erases a deleted user as far as possible, and returns whether more messages may appear.
    async fn user(&self, user: UserId, sweep: &mut Sweep<'_>) -> Result<Progress, Failure> {
        let task = sweep.task;
        let (events, credential) = (subjects::user_events(user), subjects::user_credential(user));
        self.before(&self.users, &events, task.position, sweep).await?;
        // A deletion replaces the credential by an empty one.
        if let Some(last) = self.users.last(&credential).await? {
            self.before(&self.users, &credential, last.position, sweep).await?;
        }
        self.all_sessions(user, sweep).await?;
        self.undelivered(user, sweep).await?;
        // Nothing depends on a security record, and no reader resumes from the last one.
        let records = records_of(user);
        self.before(&self.security, &records, Position(u64::MAX), sweep).await?;
        // Until the deletion is published, the feed's publisher may still publish earlier events.
        let told = self.feed.last(&feed::deletion_of(user)).await?;
        if let Some(told) = &told {
            for filter in feed::of_user(user) {
                self.before(&self.feed, &filter, told.position, sweep).await?;
            }
        }
        let waited = age(task.stored_at);
        if waited < self.second_look {
            let left = self.second_look.saturating_sub(waited);
            return Ok(Progress::Later(left, "a command may still write a message of the user"));
        }
        if told.is_none() {
            let pause = pause(task.deliveries);
            return Ok(Progress::Later(pause, "the deletion is not published in the feed yet"));
        }
        Ok(Progress::Done)
    }

    /// Erases the messages that match a filter before a position.
    async fn before(
        &self,
        log: &EventLog,
        filter: &str,
        end: Position,
        sweep: &mut Sweep<'_>,
    ) -> Result<(), Failure> {
        let mut behind = Position::default();
        while let Some(found) = log.next(filter, behind).await? {
            if found.position >= end {
                break;
            }
            behind = found.position;
            self.erase(log, behind, sweep).await?;
        }
        Ok(())
    }

    /// Erases messages that wait for subscribers, except the deletion, which they must receive.
    async fn undelivered(&self, user: UserId, sweep: &mut Sweep<'_>) -> Result<(), Failure> {
        let filter = feed::snapshots_of(user);
        let mut behind = Position::default();
        while let Some(found) = self.snapshots.next(&filter, behind).await? {
            behind = found.position;
            if found.header(EVENT_TYPE_HEADER).as_deref() != Some(feed::DELETED) {
                self.erase(&self.snapshots, behind, sweep).await?;
            }
        }
        Ok(())
    }

    /// Erases all sessions of a user. Their subjects are never written again: a refresh finds no session, and a session
    /// is started only once.
    async fn all_sessions(&self, user: UserId, sweep: &mut Sweep<'_>) -> Result<(), Failure> {
        let filter = subjects::session_events_of(user);
        let (mut behind, mut end) = (Position::default(), None);
        while let Some(found) = self.sessions.next(&filter, behind).await? {
            behind = found.position;
            if end.is_none_or(|end| behind >= end) {
                let is = self.sessions.end().await?;
                end = Some(is);
                if behind >= is {
                    self.record(user).await?;
                }
            }
            self.erase(&self.sessions, behind, sweep).await?;
        }
        Ok(())
    }

    /// Writes a record after the last session, so that it can be erased.
    async fn record(&self, user: UserId) -> Result<(), Failure> {
        let subject = subjects::session_erasure(user);
        let guard = self.sessions.top(&subject).await?.guard;
        let record = serde_json::to_vec(&SessionErasure { erased_at: ambient::now() })?;
        let command = CommandId::from_uuid(ambient::new_uuid());
        let write = Write::new(subject, guard, record);
        match self.sessions.append(&Append::new(command, write)).await {
            // A conflict: another reactor has just written it.
            Outcome::Stored(_) | Outcome::Conflict | Outcome::Duplicate => Ok(()),
            failed @ (Outcome::Unknown
            | Outcome::Full
            | Outcome::Unavailable
            | Outcome::Refused(..)) => Err(Failure::Record(failed)),
        }
    }

    async fn erase(
        &self,
        log: &EventLog,
        position: Position,
        sweep: &mut Sweep<'_>,
    ) -> Result<(), Failure> {
        let erased = self.turns.take(log.erase(position), self.ends()).await?;
        if erased {
            sweep.erased += 1;
            self.metrics.message_erased(log.stream());
        }
        if sweep.told.elapsed() >= STILL_AT_IT {
            // If it is delivered to another reactor anyway, both erase, and nothing is lost.
            let _ = sweep.task.in_progress().await;
            sweep.told = Instant::now();
            let progress = format!("{} messages erased so far; in progress", sweep.erased);
            self.waiting().insert(sweep.task.position, progress);
        }
        Ok(())
    }

    /// The ends of the streams that commands and logins write to.
    async fn ends(&self) -> Option<Ends> {
        let (users, sessions) = tokio::join!(self.users.end(), self.sessions.end());
        Some([users.ok()?, sessions.ok()?])
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<Position, String>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn cause(task: &Task) -> Result<Cause, Failure> {
    let Some(user) = task.subject().strip_prefix("ev.user.") else { return Ok(Cause::Credential) };
    let kind = task.header(EVENT_TYPE_HEADER).ok_or(Failure::NoType)?;
    if kind != UserFact::Deleted.wire_type() {
        return Ok(Cause::Nothing);
    }
    user.parse().map(Cause::Deletion).map_err(|_| Failure::Nobody)
}

fn pause(deliveries: u64) -> Duration {
    let exponent = u32::try_from(deliveries.saturating_sub(1)).unwrap_or(u32::MAX).min(10);
    (PUT_OFF_FIRST * 2_u32.pow(exponent)).min(PUT_OFF_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_minute() {
        let pauses: Vec<u64> = [1, 2, 3, 6, 7, 1_000].map(|n| pause(n).as_secs()).to_vec();
        assert_eq!(pauses, [1, 2, 4, 32, 60, 60]);
    }
}
