//! The work queue of one subscriber, that of the states it may begin with: its credentials and its client read it
//! already, nobody else's do, and the eraser knows it. An event is taken out of it as it is acknowledged.

use std::time::Duration;

use anyhow::bail;
use async_nats::Client;
use events::feed::{DELETED, SNAPSHOTS_STREAM, SNAPSHOTS_STREAM_SUBJECTS, snapshot};
use events::{Position, UserId};
use service_kit::ambient;
use service_kit::config::Settings;
use service_kit::event_log::{
    EVENT_TYPE_HEADER, EventLog, Followed, Limits, Outcome, Sequel, Subscriber,
};
use tokio::time::sleep;

use super::{kind, user_in};

/// How often a batch is sent that was not taken.
const TRIES_MAX: u32 = 10;
/// Pause between two tries.
const PAUSE: Duration = Duration::from_millis(200);

/// The queue of a subscriber.
pub struct Queue {
    log: EventLog,
    pub subscriber: String,
    /// How long events of sessions are kept in the feed, and so in here.
    sessions_kept: Duration,
}

impl Queue {
    /// Opens it, with the consumer that gives it out.
    pub async fn open(
        settings: &Settings,
        client: &Client,
        subscriber: &Subscriber,
    ) -> anyhow::Result<Self> {
        let log = EventLog::new(client.clone(), SNAPSHOTS_STREAM, Limits::of(settings));
        log.ensure_snapshot_consumer(&subscriber.name, subscriber.ack_wait).await?;
        let sessions_kept = Duration::from_secs(settings.feed.sessions_kept_s);
        Ok(Self { log, subscriber: subscriber.name.clone(), sessions_kept })
    }

    /// Stores a batch. One that may be stored already is stored again: whoever reads it knows by the revision what
    /// they have.
    pub async fn store(&self, events: &[Followed]) -> anyhow::Result<()> {
        let messages: Vec<Sequel> = events.iter().filter_map(|event| self.message(event)).collect();
        if messages.is_empty() {
            return Ok(());
        }
        for _ in 0..TRIES_MAX {
            let end = self.log.tail(&SNAPSHOTS_STREAM_SUBJECTS).await?.end;
            match self.log.append_behind(end, &messages).await {
                Outcome::Stored(_) => return Ok(()),
                Outcome::Conflict
                | Outcome::Unknown
                | Outcome::Unavailable
                | Outcome::Duplicate => sleep(PAUSE).await,
                Outcome::Full => bail!(
                    "the stream {SNAPSHOTS_STREAM} is full: let {} read what waits, or raise \
                     feed.snapshots_bytes_max and run `roster provision`; then replay the rest with --from",
                    self.subscriber
                ),
                Outcome::Refused(code, why) => bail!("the events were not stored: {code} {why}"),
            }
        }
        bail!("the stream {SNAPSHOTS_STREAM} does not take the events: start the replay again")
    }

    /// `None` for an event whose time is over.
    fn message(&self, event: &Followed) -> Option<Sequel> {
        let user = user_in(&event.subject)?;
        let mut kept = None;
        if event.subject.starts_with("sessions.") {
            let age = ambient::now().as_datetime() - event.stored_at.as_datetime();
            kept = Some(self.sessions_kept.checked_sub(age.to_std().unwrap_or_default())?);
        }
        Some(Sequel {
            subject: snapshot(&self.subscriber, user),
            payload: event.payload.clone(),
            headers: vec![(EVENT_TYPE_HEADER, kind(event).to_owned())],
            kept,
        })
    }

    /// Takes out what waits of users who are gone, but for the deletion itself.
    pub async fn forget(&self, users: &[UserId]) -> anyhow::Result<()> {
        for user in users {
            let subject = snapshot(&self.subscriber, *user);
            let mut behind = Position(0);
            while let Some(found) = self.log.next(&subject, behind).await? {
                behind = found.position;
                if found.header(EVENT_TYPE_HEADER).as_deref() != Some(DELETED) {
                    self.log.erase(behind).await?;
                }
            }
        }
        Ok(())
    }
}
