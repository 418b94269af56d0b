//! Keeps the record of the history that the log of users is in, and begins another one when the log went back.
//!
//! Positions are given a second time by a log that went back, so what a session or an access token knows of must not be
//! compared with it. Three things tell that it did: it is another stream than the record is about; it ends before a
//! position that it is known to have had; another message is at a place that is known. What is known is in memory, since
//! this process asked last, and in the record, since it was written last. A record that went back itself tells that the
//! log of sessions did, which opens sessions again that had ended (ADR 34).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use events::{CommandId, Lineage, LineageRecord, Milestone, Position, subjects};
use service_kit::ambient;
use service_kit::event_log::{
    Append, COMMAND_ID_HEADER, EventLog, Guard, Outcome, ReadError, Sequel, Standing, Write,
};
use service_kit::keys::{KeyError, random};
use service_kit::revocations::Revocations;
use tokio_util::sync::CancellationToken;

use crate::ports::LogLineage;

/// How often the log is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// After how many seconds it is written again how far the log is, when it has gone on.
const MILESTONE_EVERY_S: u64 = 60;
/// After how many seconds the record is repeated in any case. Verifiers hear the last hour.
const REPEAT_EVERY_S: u64 = 1_800;
/// The message that proves where the log ends, and how long it is kept.
const PROOF_OF_END: &str = "lineage";
const PROOF_KEPT: Duration = Duration::from_secs(60);

/// The furthest position that the log of users is known to have had.
#[derive(Debug, Clone, Default)]
pub struct Reached(Arc<AtomicU64>);

impl Reached {
    /// The log has this position.
    pub fn note(&self, position: Position) {
        self.0.fetch_max(position.0, Ordering::Relaxed);
    }

    fn position(&self) -> Position {
        Position(self.0.load(Ordering::Relaxed))
    }

    fn restart(&self, end: Position) {
        self.0.store(end.0, Ordering::Relaxed);
    }
}

/// The history as this process hears of it.
pub struct HeardLineage {
    revocations: Revocations,
    reached: Reached,
}

impl HeardLineage {
    /// From what is heard beside the ends of sessions.
    pub const fn new(revocations: Revocations, reached: Reached) -> Self {
        Self { revocations, reached }
    }
}

impl LogLineage for HeardLineage {
    fn current(&self) -> Option<LineageRecord> {
        self.revocations.lineage()
    }

    fn knows_of(&self, lineage: Lineage, position: Position) {
        // Another one may have begun since that was read.
        if self.current().is_some_and(|record| record.lineage == lineage) {
            self.reached.note(position);
        }
    }
}

/// For what starts and refreshes no sessions.
pub struct NoLineage;

impl LogLineage for NoLineage {
    fn current(&self) -> Option<LineageRecord> {
        None
    }

    fn knows_of(&self, _: Lineage, _: Position) {}
}

/// Why nothing is known of the history now.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// A stream does not answer.
    #[error(transparent)]
    Log(#[from] ReadError),
    /// There is none.
    #[error("there is no stream of users")]
    NoStream,
    /// The record is none.
    #[error("the record of the history cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// It could not be written.
    #[error("the record of the history is not stored: {0:?}")]
    NotStored(Outcome),
    /// No name can be drawn.
    #[error(transparent)]
    Random(#[from] KeyError),
}

/// The record as it is in the stream of sessions.
struct Stored {
    guard: Guard,
    known: Option<Known>,
}

/// A record, and where it is.
struct Known {
    at: Milestone,
    record: LineageRecord,
}

/// The two streams.
#[derive(Clone)]
struct Streams {
    users: EventLog,
    sessions: EventLog,
}

impl Streams {
    async fn standing(&self) -> Result<Standing, LookError> {
        self.users.standing().await?.ok_or(LookError::NoStream)
    }

    async fn stored(&self) -> Result<Stored, LookError> {
        let top = self.sessions.top(subjects::LINEAGE).await?;
        let read = |stored: &service_kit::event_log::Stored| {
            let at = Milestone { position: stored.position, stored_at: stored.stored_at };
            serde_json::from_slice(&stored.payload).map(|record| Known { at, record })
        };
        Ok(Stored { guard: top.guard, known: top.last.as_ref().map(read).transpose()? })
    }

    /// Writes it, unless another process has written one meanwhile.
    async fn write(&self, record: &LineageRecord, guard: Guard) -> Result<(), LookError> {
        let payload = serde_json::to_vec(record)?;
        let write = Write::new(subjects::LINEAGE.to_owned(), guard, payload);
        let command = CommandId::from_uuid(ambient::new_uuid());
        match self.sessions.append(&Append::new(command, write)).await {
            Outcome::Stored(_) | Outcome::Conflict | Outcome::Duplicate => Ok(()),
            failed @ (Outcome::Unknown
            | Outcome::Full
            | Outcome::Unavailable
            | Outcome::Refused(..)) => Err(LookError::NotStored(failed)),
        }
    }

    /// Whether the log ends there and nowhere else. A server that is cut off from the others may not know of the end,
    /// but it cannot store anything behind it either.
    async fn ends_at(&self, end: Position) -> bool {
        let command = CommandId::from_uuid(ambient::new_uuid());
        let proof = Sequel {
            subject: subjects::idempotency_record(PROOF_OF_END),
            payload: "{}".into(),
            headers: vec![(COMMAND_ID_HEADER, command.to_string())],
            kept: Some(PROOF_KEPT),
        };
        matches!(self.users.append_behind(end, &[proof]).await, Outcome::Stored(_))
    }

    /// The message at the end of the log, if it is one that stays until a user is erased. To ask for the last one of that
    /// kind would be work for a log of many users.
    async fn milestone(&self, end: Position) -> Result<Option<Milestone>, LookError> {
        let found = if end.0 == 0 { None } else { self.users.at(end).await? };
        let stays =
            |subject: &str| ["ev.user.", "rv.user."].iter().any(|it| subject.starts_with(it));
        let found = found.filter(|found| stays(&found.subject));
        Ok(found.map(|found| Milestone { position: end, stored_at: found.stored_at }))
    }

    /// Why the log is not in the history of a record, or of what was seen of it; `None` when nothing tells so.
    async fn parted(
        &self,
        standing: &Standing,
        record: &LineageRecord,
        seen: Option<Milestone>,
        reached: Position,
    ) -> Result<Option<String>, LookError> {
        if let (Some(was), Some(is)) = (&record.log, &standing.lineage)
            && was != is
        {
            return Ok(Some("it was made or restored since".to_owned()));
        }
        let known = [record.milestone, seen];
        let furthest = known.into_iter().flatten().map(|milestone| milestone.position).max();
        let furthest = furthest.unwrap_or_default().max(reached);
        let end = standing.end;
        if end < furthest {
            let is_end = self.ends_at(end).await;
            return Ok(is_end.then(|| format!("it had position {furthest} and ends at {end}")));
        }
        for Milestone { position, stored_at } in known.into_iter().flatten() {
            let found = self.users.at(position).await?;
            if found.is_some_and(|found| found.stored_at != stored_at) {
                return Ok(Some(format!("another message is at position {position}")));
            }
        }
        Ok(None)
    }
}

/// Looks at the log over and over.
pub struct Keeper {
    streams: Streams,
    revocations: Revocations,
    reached: Reached,
    /// The record that was found last, and the history that `reached` and `seen` are of.
    known: Option<(Milestone, Lineage)>,
    /// The last message that this process has seen.
    seen: Option<Milestone>,
}

impl Keeper {
    /// Of the streams of users and of sessions.
    pub fn new(
        (users, sessions): (EventLog, EventLog),
        revocations: Revocations,
        reached: Reached,
    ) -> Self {
        let streams = Streams { users, sessions };
        Self { streams, revocations, reached, known: None, seen: None }
    }

    /// Looks once, and makes known what was found.
    ///
    /// # Errors
    /// [`LookError`]: what was known before counts, if anything was.
    pub async fn look(&mut self) -> Result<(), LookError> {
        // Asked before the log is: it may go on meanwhile.
        let reached = self.reached.position();
        let standing = self.streams.standing().await?;
        // What is being restored has no history yet.
        if standing.unfinished {
            return Ok(());
        }
        let stored = self.heard().await?;
        let due = match &stored.known {
            Some(known) => self.due(&standing, reached, known).await?,
            None if stored.guard == Guard::absent() => Some(self.first(&standing)?),
            None => self.pushed_out(),
        };
        if let Some(record) = due {
            self.streams.write(&record, stored.guard).await?;
            self.heard().await?;
        }
        Ok(())
    }

    /// The record, which the whole process knows from now on.
    async fn heard(&self) -> Result<Stored, LookError> {
        let stored = self.streams.stored().await?;
        if let Some(Known { at, record }) = &stored.known {
            self.revocations.learn_lineage(at.stored_at, record.clone());
        }
        Ok(stored)
    }

    /// The record of a log that has none.
    fn first(&self, standing: &Standing) -> Result<LineageRecord, LookError> {
        let follows = self.known.map(|(_, lineage)| lineage);
        Ok(LineageRecord { follows, ..drawn(standing)? })
    }

    /// The record that foreign messages have pushed out of its subject, which keeps a few: it is written again by whoever
    /// remembers it. Nobody else begins another history, or whoever can have messages stored would end all sessions.
    fn pushed_out(&self) -> Option<LineageRecord> {
        tracing::error!(
            "messages that no writer of the log wrote have pushed the record of its history out"
        );
        self.revocations.lineage()
    }

    /// What is to be written, if anything is.
    async fn due(
        &mut self,
        standing: &Standing,
        reached: Position,
        Known { at, record }: &Known,
    ) -> Result<Option<LineageRecord>, LookError> {
        let before = self.known;
        let follows = before.map_or(record.lineage, |(_, lineage)| lineage);
        let sessions_went_back =
            record.follows != Some(follows) && before.is_some_and(|(last, _)| is_before(*at, last));
        if follows != record.lineage && !sessions_went_back {
            // It has begun: what is remembered is of the one before.
            self.known = Some((*at, record.lineage));
            self.seen = None;
            self.reached.restart(standing.end);
            return Ok(None);
        }
        let parted = if sessions_went_back {
            Some("the log of sessions did".to_owned())
        } else {
            self.streams.parted(standing, record, self.seen, reached).await?
        };
        // Nothing is forgotten before it is stored that another one has begun.
        if let Some(why) = parted {
            tracing::error!(
                why,
                "the log of users went back: another history begins, in which no session and no access token of before is \
                 good"
            );
            return Ok(Some(LineageRecord { follows: Some(follows), ..drawn(standing)? }));
        }
        self.known = Some((*at, record.lineage));
        self.reached.note(standing.end);
        self.seen = self.streams.milestone(standing.end).await?.or(self.seen);
        let milestone =
            [self.seen, record.milestone].into_iter().flatten().max_by_key(|it| it.position);
        let age = |seconds| ambient::now() >= at.stored_at.plus_seconds(seconds);
        let is_due = age(REPEAT_EVERY_S)
            || milestone != record.milestone && age(MILESTONE_EVERY_S)
            || record.log != standing.lineage;
        let log = standing.lineage.clone();
        Ok(is_due.then(|| LineageRecord { log, milestone, ..record.clone() }))
    }

    /// Looks until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut is_silent = false;
        while stop.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_some() {
            let Err(error) = self.look().await else {
                is_silent = false;
                continue;
            };
            if !is_silent && !stop.is_cancelled() {
                tracing::warn!(%error, "cannot look whether the log of users went back; retrying");
            }
            is_silent = true;
        }
    }
}

/// Begins another history of the log, as the operator. No access token of before is good in it, and sessions of before
/// live on only if they are kept.
///
/// # Errors
/// [`LookError`]: it may have begun; do it again.
pub async fn begin_lineage(
    log: &impl Fn(&str) -> EventLog,
    keep_sessions: bool,
) -> Result<(), LookError> {
    let users = log(subjects::USERS_STREAM);
    let streams = Streams { users, sessions: log(subjects::SESSIONS_STREAM) };
    let mut record = drawn(&streams.standing().await?)?;
    let stored = streams.stored().await?;
    record.follows = stored.known.as_ref().map(|before| before.record.lineage);
    if let (true, Some(before)) = (keep_sessions, &stored.known) {
        record = record.keeping(&before.record);
    }
    streams.write(&record, stored.guard).await
}

/// Whether a record stands before one that was there already, or in its place. Clocks of servers differ, positions do not.
fn is_before(found: Milestone, last: Milestone) -> bool {
    found.position < last.position || found.position == last.position && found != last
}

fn drawn(standing: &Standing) -> Result<LineageRecord, KeyError> {
    Ok(LineageRecord::new(Lineage::from_bytes(random()?), standing.lineage.clone()))
}

#[cfg(test)]
mod tests;
