//! Messages in a stream that are not of its writers.
//!
//! Every append names its command in a header, and every event its type. The server's own answers have neither, and
//! neither has what somebody publishes by hand. Who reads passes such a message over and says so: it parks nobody, hides
//! no record beneath it and leads to nothing. That holds for every stream of Roster's, the feed, the audit and the
//! security record among them: a service in the account of the streams can have the server store an answer in any of
//! them, by the reply subject of a question (ADR 28). A writer whose credentials are stolen can word these headers too.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use events::Position;

use super::read::{ReadError, Stored};
use super::{COMMAND_ID_HEADER, EVENT_TYPE_HEADER, EventLog, Guard};
use crate::metrics::ForeignMetrics;

/// Foreign messages on top of one subject that are looked beneath.
const ON_TOP_MAX: usize = 64;
/// Foreign messages at the end of a stream that are looked beneath. One question each, so this is some seconds' worth.
const AT_END_MAX: usize = 10_000;
/// Foreign messages that a process remembers, so that each is reported once.
const REMEMBERED_MAX: usize = 1_000;

/// Whether a message has not what every append gives it. `has` says whether it has a header.
pub(super) fn is_foreign(subject: &str, has: impl Fn(&str) -> bool) -> bool {
    let is_event = subject.starts_with("ev.");
    !has(EVENT_TYPE_HEADER) && (is_event || !has(COMMAND_ID_HEADER))
}

/// What stands on one literal subject.
#[derive(Debug, Clone)]
pub struct Top {
    /// The last message of a writer, if there is one.
    pub last: Option<Stored>,
    /// The guard for the next write to the subject, whoever wrote the last message.
    pub guard: Guard,
}

/// Where foreign messages are reported.
#[derive(Clone, Default)]
pub(super) struct Report {
    pub(super) metrics: Option<ForeignMetrics>,
    reported: Arc<Mutex<BTreeSet<Position>>>,
}

impl Report {
    /// Whether a message was not reported before.
    fn is_new(&self, position: Position) -> bool {
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        if reported.len() >= REMEMBERED_MAX {
            reported.pop_first();
        }
        reported.insert(position)
    }
}

impl EventLog {
    /// Reports a foreign message that is passed over, once.
    pub fn passes_over(&self, subject: &str, position: Position) {
        if !self.foreign.is_new(position) {
            return;
        }
        tracing::error!(
            stream = %self.stream, subject, %position,
            "a message that no writer of the log wrote is passed over"
        );
        if let Some(metrics) = &self.foreign.metrics {
            metrics.passed_over();
        }
    }

    /// The last message of a writer on one literal subject, and the guard for the next write to it.
    ///
    /// # Errors
    /// [`ReadError`]: decide nothing. Also when more than 64 foreign messages are on top: an operator has to remove
    /// them.
    pub async fn top(&self, subject: &str) -> Result<Top, ReadError> {
        let Some(newest) = self.newest_on(subject).await? else {
            return Ok(Top { last: None, guard: Guard::absent() });
        };
        let guard = newest.guard();
        Ok(Top { last: self.beneath(subject, Some(newest)).await?, guard })
    }

    /// The last message of a writer on one literal subject before a position.
    ///
    /// # Errors
    /// As for [`EventLog::top`].
    pub async fn previous(
        &self,
        subject: &str,
        end: Position,
    ) -> Result<Option<Stored>, ReadError> {
        let found = self.before(subject, end).await?;
        self.beneath(subject, found).await
    }

    /// The message, or the last one of a writer anywhere in the stream before it. For the end of a stream with one writer,
    /// where whoever lets an answer be stored can put many on top at once: so it is one question for each, and not a
    /// search.
    pub(super) async fn beneath_the_end(
        &self,
        mut message: Option<Stored>,
    ) -> Result<Option<Stored>, ReadError> {
        for _ in 0..AT_END_MAX {
            let foreign = match message {
                Some(foreign) if foreign.is_foreign() => foreign,
                found => return Ok(found),
            };
            self.passes_over(&foreign.subject, foreign.position);
            message = match Position(foreign.position.0.saturating_sub(1)) {
                Position(0) => None,
                position => match self.at(position).await? {
                    Some(stored) => Some(stored),
                    // Something was erased there.
                    None => self.before(">", position).await?,
                },
            };
        }
        let stream = &self.stream;
        Err(ReadError::Refused(format!(
            "more than {AT_END_MAX} messages that Roster did not write end {stream}: take them out with `roster prune messages`"
        )))
    }

    /// The first message of a writer behind a position whose subject fits `filter`, which may have wildcards.
    ///
    /// # Errors
    /// [`ReadError`]: decide nothing.
    pub async fn next_own(
        &self,
        filter: &str,
        after: Position,
    ) -> Result<Option<Stored>, ReadError> {
        let mut after = after;
        while let Some(found) = self.next(filter, after).await? {
            if !found.is_foreign() {
                return Ok(Some(found));
            }
            self.passes_over(&found.subject, found.position);
            after = found.position;
        }
        Ok(None)
    }

    /// The message, or the last one of a writer before it when no writer wrote it.
    async fn beneath(
        &self,
        subject: &str,
        mut message: Option<Stored>,
    ) -> Result<Option<Stored>, ReadError> {
        for _ in 0..ON_TOP_MAX {
            match message {
                Some(foreign) if foreign.is_foreign() => {
                    self.passes_over(&foreign.subject, foreign.position);
                    message = self.before(subject, foreign.position).await?;
                }
                found => return Ok(found),
            }
        }
        Err(ReadError::Refused(format!("more than {ON_TOP_MAX} foreign messages end {subject}")))
    }

    /// The last message on a literal subject before a position. The server can only be asked for the first one from a
    /// position on, so the place is halved until nothing is between: some thirty questions in a long log.
    async fn before(&self, subject: &str, end: Position) -> Result<Option<Stored>, ReadError> {
        let mut found = None;
        // Nothing on the subject is in `high..end`, and what is at `low` is in `found`.
        let (mut low, mut high) = (0_u64, end.0);
        while low.saturating_add(1) < high {
            let middle = low + (high - low) / 2;
            let next = self.next(subject, Position(middle.saturating_sub(1))).await?;
            match next.filter(|next| next.position < end) {
                Some(next) => {
                    low = next.position.0;
                    found = Some(next);
                }
                None => high = middle,
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_every_append_has_tells_writers_from_others() {
        let (command, kind) = (COMMAND_ID_HEADER, EVENT_TYPE_HEADER);
        for (subject, headers, foreign) in [
            ("ev.user.x", &[command, kind][..], false),
            ("ev.user.x", &[command], true),
            ("ev.user.x", &[], true),
            ("sec.user.x", &[command], false),
            ("uq.email.x", &["Nats-Msg-Id"], true),
            ("users.v1.registered.x", &[kind], false),
        ] {
            assert_eq!(is_foreign(subject, |name| headers.contains(&name)), foreign, "{subject}");
        }
    }
}
