//! Revoked access tokens, known in memory in every process that verifies tokens.
//!
//! Everything that ends access writes a small message to the log: `rv.user.<id>` for a user (disabled, deleted, another
//! password or other roles, logged out everywhere), `rv.session.<id>` for one session. Every process follows both,
//! starting a little more than the longest lifetime of an access token ago, and remembers them for that long: older
//! tokens have expired anyway. So a check costs two look-ups in memory and no request, a logout is known everywhere
//! within milliseconds, and a restart begins with the same knowledge.
//!
//! # When the log goes back
//! A token names the history of the log in which it was made, and the log's current history is published on
//! `rv.session.lineage`, at least every half hour ([`LineageRecord`]). A token of another history is rejected, because
//! positions of different histories cannot be compared. A token without a history is from an older version; for these,
//! this module notices by itself that the log went back, and rejects earlier ones by their time.
//!
//! # When NATS does not answer
//! A process that receives nothing cannot know the latest revocations. It goes on accepting access tokens, whose
//! lifetime limits the harm, but accepts nobody as administrator or operator ([`Revocations::is_current`]) once the
//! silence has lasted for `revocations.silence_max_ms`, and is not ready. Missed revocations are read first when the
//! connection is back.

use std::collections::HashMap;
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use events::{Lineage, LineageRecord, Position, SessionId, Timestamp, UserId, subjects};
use futures::StreamExt;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::ambient;
use crate::event_log::{EventLog, FollowError, Followed, Limits, SILENCE_DEFAULT, Start};
use crate::health::Readiness;
use crate::metrics::Metrics;
use crate::tokens::{ACCESS_LIFETIME_MAX_S, CLOCKS_MARGIN_S};

/// How long revocations are remembered: the longest lifetime that any Roster can give an access token, whatever the
/// setting of this one, so that no other service has to know it. Clocks differ.
const KEPT_S: u64 = ACCESS_LIFETIME_MAX_S + CLOCKS_MARGIN_S;
/// Nothing is appended here, and followers have limits of their own.
const LIMITS: Limits = Limits {
    request_timeout: Duration::from_secs(5),
    append_deadline: Duration::from_secs(5),
    silence_max: SILENCE_DEFAULT,
};
/// Pause before following again after a disturbance.
const PAUSE: Duration = Duration::from_millis(200);
/// How long nothing has arrived when a disturbance is noticed: two missed heartbeats.
const NOTICED_AFTER: Duration = Duration::from_secs(2);
/// Number of entries from which on expired ones are removed.
const PRUNE_FROM: usize = 1_024;

/// One of the two streams of revocations.
#[derive(Clone, Copy)]
enum Feed {
    Users,
    Sessions,
}

impl Feed {
    const fn stream(self) -> &'static str {
        match self {
            Self::Users => subjects::USERS_STREAM,
            Self::Sessions => subjects::SESSIONS_STREAM,
        }
    }

    const fn filter(self) -> &'static str {
        match self {
            Self::Users => subjects::USER_REVOCATIONS_FILTER,
            Self::Sessions => subjects::SESSION_REVOCATIONS_FILTER,
        }
    }
}

/// The state of a stream.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Heard {
    /// It has not been read to its end yet.
    Behind,
    /// Everything has been read, and the server confirms it every second.
    Live,
    /// Nothing has arrived since then.
    SilentSince(Instant),
}

/// The revocations, and until when they are remembered: from then on no token can depend on them.
#[derive(Default)]
struct Denied {
    users: HashMap<UserId, (Position, Instant)>,
    sessions: HashMap<SessionId, Instant>,
    prune_at: usize,
    /// The last message of the log of users, by position and by time.
    last: Option<(Position, Timestamp)>,
    /// When the log was seen to have gone back: earlier epochs are meaningless in it.
    went_back_at: Option<Timestamp>,
    /// The current history of the log, and when that was written; `None` if it was never written.
    lineage: Option<(Timestamp, LineageRecord)>,
    /// The stream that accepted no consumer at the last attempt.
    full_stream: Option<Arc<str>>,
}

/// The revocations. Cheap to clone.
#[derive(Clone)]
pub struct Revocations {
    denied: Arc<RwLock<Denied>>,
    users: watch::Receiver<Heard>,
    sessions: watch::Receiver<Heard>,
    silence_max: Duration,
    began: Instant,
}

impl Revocations {
    /// Follows both streams until `stop`. After a silence of `silence_max` this is no longer
    /// [current](Self::is_current).
    #[must_use]
    pub fn follow(
        client: &async_nats::Client,
        silence_max: Duration,
        stop: &CancellationToken,
    ) -> Self {
        let denied = Arc::new(RwLock::new(Denied::default()));
        let start = |feed: Feed| {
            let (tell, heard) = watch::channel(Heard::Behind);
            let follower = Follower {
                log: EventLog::new(client.clone(), feed.stream(), LIMITS),
                feed,
                denied: Arc::clone(&denied),
                tell,
            };
            let stop = stop.clone();
            #[expect(
                clippy::disallowed_methods,
                reason = "ends with its stop token, which every caller has"
            )]
            tokio::spawn(async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = follower.run() => {}
                }
            });
            heard
        };
        let (users, sessions) = (start(Feed::Users), start(Feed::Sessions));
        Self { denied, users, sessions, silence_max, began: Instant::now() }
    }

    /// Waits until both streams have been read to their end; `false` if that takes longer than `limit`.
    pub async fn caught_up(&self, limit: Duration) -> bool {
        let live = async |feed: &watch::Receiver<Heard>| {
            let mut feed = feed.clone();
            feed.wait_for(|heard| *heard == Heard::Live).await.is_ok()
        };
        timeout(limit, async { live(&self.users).await && live(&self.sessions).await })
            .await
            .unwrap_or(false)
    }

    /// Why a stream cannot be followed, if the cause is the number of consumers.
    #[must_use]
    pub fn too_many_consumers(&self) -> Option<FollowError> {
        let stream = read(&self.denied).full_stream.clone();
        stream.map(|stream| FollowError::TooManyConsumers { stream })
    }

    fn is_live(&self) -> bool {
        self.feeds().all(|heard| heard == Heard::Live)
    }

    /// Adds the readiness check that both streams are live.
    #[must_use]
    pub fn check(&self, readiness: Readiness) -> Readiness {
        let revocations = self.clone();
        readiness.with("revocations", move || {
            let live = revocations.is_live();
            let silent = "the stream of revocations is silent; following it again".to_owned();
            async move { if live { Ok(()) } else { Err(silent) } }
        })
    }

    /// Reports at every scrape how long nothing has arrived.
    pub fn watched(&self, metrics: &Metrics) {
        let (revocations, watching) = (self.clone(), metrics.clone());
        metrics.sample(move || {
            for (feed, heard) in ["users", "sessions"].into_iter().zip(revocations.feeds()) {
                let silence = match heard {
                    Heard::Behind => revocations.began.elapsed(),
                    Heard::Live => Duration::ZERO,
                    Heard::SilentSince(since) => since.elapsed(),
                };
                watching.revocations_silence(feed, silence);
            }
            std::future::ready(())
        });
    }

    /// Whether the revocations are recent enough to grant privileges.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.feeds().all(|heard| match heard {
            Heard::Behind => false,
            Heard::Live => true,
            Heard::SilentSince(since) => since.elapsed() < self.silence_max,
        })
    }

    /// Whether an access token is revoked: its session ended, or its user's access ended after `epoch`.
    #[must_use]
    pub fn denies(&self, user: UserId, session: SessionId, epoch: Position) -> bool {
        let denied = read(&self.denied);
        denied.sessions.contains_key(&session)
            || denied.users.get(&user).is_some_and(|(cutoff, _)| epoch < *cutoff)
    }

    /// Whether a token was made (in seconds of Unix time) before the log went back, because its files or a backup were
    /// restored. Positions are then assigned a second time, so a revocation can have a lower position than the `epoch`
    /// of a token that it must revoke.
    #[must_use]
    pub fn is_of_another_log(&self, made_at_unix_seconds: u64) -> bool {
        let went_back_at = read(&self.denied).went_back_at;
        went_back_at.is_some_and(|at| {
            u64::try_from(at.as_datetime().timestamp()).is_ok_and(|at| made_at_unix_seconds < at)
        })
    }

    /// Whether a token was made in another history of the log, so that its epoch is meaningless.
    #[must_use]
    pub fn is_of_another_lineage(&self, of_token: Option<Lineage>) -> bool {
        let denied = read(&self.denied);
        let current = denied.lineage.as_ref().map(|(_, record)| record.lineage);
        of_token.zip(current).is_some_and(|(of_token, current)| of_token != current)
    }

    /// The current history of the log, as far as it is known.
    #[must_use]
    pub fn lineage(&self) -> Option<LineageRecord> {
        read(&self.denied).lineage.as_ref().map(|(_, record)| record.clone())
    }

    /// Adds a lineage record that was read elsewhere.
    pub fn learn_lineage(&self, stored_at: Timestamp, record: LineageRecord) {
        write(&self.denied).learn_lineage(stored_at, record);
    }

    fn feeds(&self) -> impl Iterator<Item = Heard> {
        [*self.users.borrow(), *self.sessions.borrow()].into_iter()
    }
}

struct Follower {
    log: EventLog,
    feed: Feed,
    denied: Arc<RwLock<Denied>>,
    tell: watch::Sender<Heard>,
}

impl Follower {
    async fn run(self) {
        let mut start = Start::Since(ambient::now().minus_seconds(KEPT_S));
        loop {
            let Err(error) = self.follow(&mut start).await;
            tracing::warn!(stream = self.feed.stream(), %error, "the stream of revocations is silent; following it again");
            if let FollowError::TooManyConsumers { stream } = &error {
                write(&self.denied).full_stream = Some(Arc::clone(stream));
            }
            self.tell.send_if_modified(|heard| {
                let was_live = *heard == Heard::Live;
                if was_live {
                    let since = Instant::now().checked_sub(NOTICED_AFTER);
                    *heard = Heard::SilentSince(since.unwrap_or_else(Instant::now));
                }
                was_live
            });
            sleep(PAUSE).await;
        }
    }

    /// Follows until a disturbance.
    async fn follow(&self, start: &mut Start) -> Result<std::convert::Infallible, FollowError> {
        let mut following = self.log.follow(&[self.feed.filter()], *start).await?;
        if following.pending == 0 {
            self.tell.send_replace(Heard::Live);
        }
        while let Some(message) = following.messages.next().await {
            let message = message?;
            if !message.is_foreign {
                self.take(&message);
            }
            // By time and not by position: a log that was restored in the meantime has other positions, and a follower
            // after an end that it does not have would receive nothing.
            *start = Start::Since(message.stored_at.minus_seconds(CLOCKS_MARGIN_S));
            if message.pending == 0 {
                self.tell.send_replace(Heard::Live);
            }
        }
        Err(FollowError::Disturbed("the server ended it".to_owned()))
    }

    fn take(&self, message: &Followed) {
        let name = message.subject.rsplit('.').next().unwrap_or_default();
        let mut denied = write(&self.denied);
        if message.subject == subjects::LINEAGE {
            match serde_json::from_slice(&message.payload) {
                Ok(record) => denied.learn_lineage(message.stored_at, record),
                Err(error) => tracing::error!(%error, "the history of the log cannot be read"),
            }
            return;
        }
        // Measured by a monotonic clock from the arrival: one that jumps ahead and back would forget revocations of
        // tokens that are valid again by then.
        let now = Instant::now();
        let until = now + Duration::from_secs(KEPT_S);
        match self.feed {
            Feed::Users => {
                if denied.hears(message.position, message.stored_at) {
                    tracing::error!(
                        position = %message.position,
                        "the log of users went back: rejecting earlier access tokens"
                    );
                }
                if let Ok(user) = name.parse() {
                    denied.end_user(user, message.position, until);
                }
            }
            Feed::Sessions => {
                if let Ok(session) = name.parse() {
                    denied.sessions.insert(session, until);
                }
            }
        }
        denied.prune(now);
    }
}

impl Denied {
    /// Records a message, and returns whether the log went back: within one history, later messages have higher
    /// positions. A message that is read again after a disturbance is not later.
    fn hears(&mut self, position: Position, stored_at: Timestamp) -> bool {
        let Some((end, time)) = self.last else {
            self.last = Some((position, stored_at));
            return false;
        };
        let went_back = position <= end && stored_at > time;
        if went_back {
            self.went_back_at = Some(stored_at);
        }
        if went_back || position > end {
            self.last = Some((position, time.max(stored_at)));
        }
        went_back
    }

    /// The record that was written last counts, in whatever order they are read.
    fn learn_lineage(&mut self, stored_at: Timestamp, record: LineageRecord) {
        if self.lineage.as_ref().is_some_and(|(known, _)| *known > stored_at) {
            return;
        }
        let known = self.lineage.as_ref().map(|(_, record)| record.lineage);
        if known.is_some_and(|known| known != record.lineage) {
            tracing::error!(
                lineage = %record.lineage,
                "the log of users is in another history: rejecting earlier sessions and access tokens"
            );
        }
        self.lineage = Some((stored_at, record));
    }

    /// The last revocation counts, in whatever order they are read.
    fn end_user(&mut self, user: UserId, position: Position, until: Instant) {
        let known = self.users.entry(user).or_insert((position, until));
        *known = (known.0.max(position), known.1.max(until));
    }

    /// Forgets revocations that no token can depend on any more, whenever there are twice as many as after the last
    /// time.
    fn prune(&mut self, now: Instant) {
        if self.users.len() + self.sessions.len() < self.prune_at.max(PRUNE_FROM) {
            return;
        }
        self.users.retain(|_, (_, until)| *until > now);
        self.sessions.retain(|_, until| *until > now);
        self.prune_at = 2 * (self.users.len() + self.sessions.len());
    }
}

fn read(denied: &RwLock<Denied>) -> RwLockReadGuard<'_, Denied> {
    denied.read().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn write(denied: &RwLock<Denied>) -> RwLockWriteGuard<'_, Denied> {
    denied.write().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_that_is_read_again_opens_nothing() {
        let mut denied = Denied::default();
        let (user, until) = (UserId::from_uuid(ambient::new_uuid()), Instant::now());
        for position in [10, 20, 10] {
            denied.end_user(user, Position(position), until);
        }
        assert_eq!(denied.users[&user], (Position(20), until));
    }

    #[test]
    fn a_log_that_goes_back_is_told_from_one_that_is_read_again() {
        let mut denied = Denied::default();
        let time = |second: i64| Timestamp::from_unix_seconds(1_800_000_000 + second).unwrap();
        // In order, with the slower clock of another leader, and both again after a disturbance.
        for (position, second) in [(10, 5), (11, 3), (10, 5), (11, 3), (12, 6)] {
            assert!(!denied.hears(Position(position), time(second)), "{position}");
        }
        assert!(denied.hears(Position(12), time(7)));
        assert_eq!(denied.went_back_at, Some(time(7)));
        assert!(!denied.hears(Position(13), time(8)));
        assert!(denied.hears(Position(2), time(9)), "and once more");
    }

    #[test]
    fn the_history_that_was_written_last_counts() {
        let mut denied = Denied::default();
        let time = |second: i64| Timestamp::from_unix_seconds(1_800_000_000 + second).unwrap();
        let record = |n| LineageRecord::new(Lineage::from_bytes([n; 8]), None);
        for (second, n, is) in [(5, 1, 1), (7, 2, 2), (5, 1, 2), (7, 2, 2), (9, 3, 3)] {
            denied.learn_lineage(time(second), record(n));
            assert_eq!(
                denied.lineage,
                Some((time(if is == 1 { 5 } else { second.max(7) }), record(is)))
            );
        }
    }

    #[test]
    fn what_nobody_can_refer_to_is_forgotten() {
        let (now, later) = (Instant::now(), Duration::from_secs(60));
        let mut denied = Denied::default();
        for n in 0..PRUNE_FROM {
            let until = if n % 2 == 0 { now } else { now + later };
            denied.sessions.insert(SessionId::from_uuid(ambient::new_uuid()), until);
        }
        denied.prune(now);
        assert_eq!(denied.sessions.len(), PRUNE_FROM / 2);
        assert!(denied.sessions.values().all(|until| *until > now));
    }
}
