//! What a subscriber needs to know, and how patient it is.

use std::path::PathBuf;
use std::time::Duration;

/// How a subscriber connects and works. The times and numbers have defaults that suit most.
#[derive(Debug, Clone)]
pub struct Settings {
    pub(super) server: String,
    pub(super) name: String,
    pub(super) creds: PathBuf,
    pub(super) state: PathBuf,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) retry_for: Duration,
    pub(super) retry_first: Duration,
    pub(super) retry_pause_max: Duration,
    pub(super) attempt_max: Duration,
    pub(super) parked_events_max: usize,
    pub(super) at_once_max: usize,
    pub(super) keep_revisions: bool,
}

impl Settings {
    /// What the operator's `roster subscribers add` printed and wrote, and a folder for what the subscriber
    /// must remember. Several servers of one cluster are divided by commas. The folder is made when it is not there; it belongs to this subscriber alone.
    #[must_use]
    pub fn new(
        server: impl Into<String>,
        name: impl Into<String>,
        creds: impl Into<PathBuf>,
        state: impl Into<PathBuf>,
    ) -> Self {
        Self {
            server: server.into(),
            name: name.into(),
            creds: creds.into(),
            state: state.into(),
            ca_file: None,
            retry_for: Duration::from_secs(60),
            retry_first: Duration::from_millis(200),
            retry_pause_max: Duration::from_secs(10),
            attempt_max: Duration::from_mins(10),
            parked_events_max: 10_000,
            at_once_max: 64,
            keep_revisions: true,
        }
    }

    /// Certificates (PEM) that the server's must be signed by, for a `tls://` server with an authority of
    /// its own.
    #[must_use]
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca_file = Some(path.into());
        self
    }

    /// How long an event is tried that the handler refuses, before it is parked (default 60 s). With the
    /// order kept, everybody else waits for so long. Zero tries once.
    #[must_use]
    pub const fn retry_for(mut self, time: Duration) -> Self {
        self.retry_for = time;
        self
    }

    /// Pause before the second attempt, and the longest one; each is twice the one before (defaults 200 ms
    /// and 10 s).
    #[must_use]
    pub const fn retry_pauses(mut self, first: Duration, max: Duration) -> Self {
        self.retry_first = first;
        self.retry_pause_max = max;
        self
    }

    /// How long one call of the handler may take; longer is a failure (default 10 min). Until then the server
    /// is told that the event is still being worked on.
    #[must_use]
    pub const fn attempt_max(mut self, time: Duration) -> Self {
        self.attempt_max = time;
        self
    }

    /// How many events may lie parked (default 10,000). With one more the subscriber ends with
    /// [`ClientError::ParkedFull`](super::ClientError::ParkedFull), since a whole world that cannot be handled
    /// is no fault of single users.
    #[must_use]
    pub const fn parked_events_max(mut self, events: usize) -> Self {
        self.parked_events_max = events;
        self
    }

    /// How many users' events are worked on at once, where the consumer allows more than one in flight
    /// (default 64).
    #[must_use]
    pub const fn at_once_max(mut self, events: usize) -> Self {
        self.at_once_max = if events == 0 { 1 } else { events };
        self
    }

    /// Leaves duplicates to the handler: for those who keep the last revision with a [`Mark`](super::Mark)
    /// in their own database.
    #[must_use]
    pub const fn without_revisions(mut self) -> Self {
        self.keep_revisions = false;
        self
    }
}
