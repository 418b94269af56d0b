//! The position of the views: announced by the projector, followed by everything that waits for it (ADR 4).
//!
//! The projector announces its position on a core NATS subject after each commit, and every [`HEARTBEAT`] when nothing
//! happens. Nothing is stored: the next announcement replaces a lost one, and silence means that the projector is down.
//!
//! While a service builds its views with a new layout, it runs two projectors, of the old version and of the new one.
//! Both announce on one subject, and a listener only hears the layout that it reads (ADR 21).

use std::time::Duration;

use async_nats::{Client, Subject, SubscribeError};
use events::Position;
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::metrics::{Metrics, ViewsMetrics};

/// Pause between two announcements of an idle projector.
pub const HEARTBEAT: Duration = Duration::from_secs(1);
/// Silence after which the projector counts as down: three heartbeats and a margin.
const DOWN_AFTER: Duration = Duration::from_millis(3_500);

/// The core subject on which the position of some views is announced. `views` is their name, in the plural.
#[must_use]
pub fn subject_of(views: &str) -> String {
    format!("roster.position.{views}")
}

#[derive(Serialize, Deserialize)]
struct Announcement {
    position: Position,
    /// For views with layouts instead of generations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    layout: Option<u32>,
}

/// The projector's side.
#[derive(Clone)]
pub struct Announcer {
    client: Client,
    subject: Subject,
    layout: Option<u32>,
}

impl Announcer {
    /// Announces over a connection, on the subject of some views.
    #[must_use]
    pub fn new(client: Client, subject: impl Into<Subject>) -> Self {
        Self { client, subject: subject.into(), layout: None }
    }

    /// The same for views of a layout.
    #[must_use]
    pub fn of_layout(self, layout: u32) -> Self {
        Self { layout: Some(layout), ..self }
    }

    /// Announces the position of the views. The next heartbeat replaces a lost announcement.
    #[expect(clippy::disallowed_methods, reason = "a core subject that no stream keeps")]
    pub async fn announce(&self, position: Position) {
        let announcement = Announcement { position, layout: self.layout };
        let Ok(payload) = serde_json::to_vec(&announcement) else { return };
        if let Err(error) = self.client.publish(self.subject.clone(), payload.into()).await {
            tracing::debug!(%error, "position not announced");
        }
    }
}

/// What came of a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waited {
    /// The views have the position.
    Reached,
    /// They do not, and the time is over.
    TimedOut,
    /// The projector is silent: waiting would be in vain.
    ProjectorDown,
}

#[derive(Clone, Copy)]
struct Heard {
    position: Position,
    at: Instant,
}

/// The listener's side. Cheap to clone.
#[derive(Clone)]
pub struct ViewsPosition {
    heard: watch::Receiver<Option<Heard>>,
    metrics: Option<ViewsMetrics>,
}

impl ViewsPosition {
    /// Starts to listen to one kind of views, until `stop`. The subscription outlives reconnections.
    ///
    /// # Errors
    /// The subscription could not be made.
    pub async fn follow(
        client: &Client,
        subject: impl Into<Subject>,
        stop: CancellationToken,
    ) -> Result<Self, SubscribeError> {
        Self::follow_only(client, subject.into(), None, stop).await
    }

    /// The same for views of a layout; what is announced of others is not heard.
    ///
    /// # Errors
    /// The subscription could not be made.
    pub async fn follow_layout(
        client: &Client,
        subject: impl Into<Subject>,
        layout: u32,
        stop: CancellationToken,
    ) -> Result<Self, SubscribeError> {
        Self::follow_only(client, subject.into(), Some(layout), stop).await
    }

    async fn follow_only(
        client: &Client,
        subject: Subject,
        layout: Option<u32>,
        stop: CancellationToken,
    ) -> Result<Self, SubscribeError> {
        let mut announcements = client.subscribe(subject).await?;
        let (tell, heard) = watch::channel(None);
        #[expect(
            clippy::disallowed_methods,
            reason = "ends with its stop token, which every caller has"
        )]
        tokio::spawn(async move {
            loop {
                let message = tokio::select! {
                    () = stop.cancelled() => return,
                    message = announcements.next() => message,
                };
                let Some(message) = message else { return };
                let Ok(said) = serde_json::from_slice::<Announcement>(&message.payload) else {
                    continue;
                };
                if said.layout != layout {
                    continue;
                }
                // The last word counts, also when it is lower: views restored from an older database
                // really are further back.
                tell.send_replace(Some(Heard { position: said.position, at: Instant::now() }));
            }
        });
        Ok(Self { heard, metrics: None })
    }

    /// The same, with its waits counted. `views` names them.
    #[must_use]
    pub fn watched(self, metrics: &Metrics, views: &'static str) -> Self {
        Self { metrics: Some(metrics.views(views)), ..self }
    }

    /// Counts a wait that somebody waited, with or without [`ViewsPosition::wait_for`].
    pub fn count(&self, outcome: Waited, took: Duration) {
        if let Some(metrics) = &self.metrics {
            metrics.waited(outcome, took);
        }
    }

    /// The last position heard of.
    #[must_use]
    pub fn current(&self) -> Option<Position> {
        self.heard.borrow().map(|heard| heard.position)
    }

    /// Whether the projector has been heard of lately.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.heard.borrow().is_some_and(|heard| heard.at.elapsed() < DOWN_AFTER)
    }

    /// Waits and counts: whether the views have `position` within `limit`. Without a limit nobody waits.
    pub async fn have(&self, position: Position, limit: Duration) -> bool {
        if limit.is_zero() {
            return false;
        }
        let began = Instant::now();
        let waited = self.wait_for(position, limit).await;
        self.count(waited, began.elapsed());
        waited == Waited::Reached
    }

    /// Waits until the views have `position`, at most `limit`.
    pub async fn wait_for(&self, position: Position, limit: Duration) -> Waited {
        let reached = |heard: &Option<Heard>| heard.is_some_and(|heard| heard.position >= position);
        if reached(&self.heard.borrow()) {
            return Waited::Reached;
        }
        if !self.is_alive() {
            return Waited::ProjectorDown;
        }
        let mut heard = self.heard.clone();
        match timeout(limit, heard.wait_for(reached)).await {
            Ok(Ok(_)) => Waited::Reached,
            Ok(Err(_)) => Waited::ProjectorDown,
            Err(_) => Waited::TimedOut,
        }
    }
}
