//! The feed of a peer service: one log, and nothing is parked. An event that cannot be read stops the feed, and
//! readiness reports it.

use std::marker::PhantomData;

use events::{DecodeError, Envelope, Fact, Position, ServiceNames};
use serde::Serialize;
use serde_json::Value;
use service_kit::event_log::{EVENT_TYPE_HEADER, EventLog, Followed, Sequel};
use service_kit::telemetry::Telemetry;

use super::{Feed, FeedPublisher, FeedSource, PublishError, SourceLog};
use crate::run::FollowLimits;

/// Header of every message of a service's feed: the position in its log up to which the feed is complete.
const POSITION_HEADER: &str = "Roster-Position";

/// The published part of an event: the name of its type, and its `data`.
pub type PublicEvent = (&'static str, Value);

/// The published form of a service's events. The log may change with the service; the feed may not. So every member is
/// named here, and none is passed on implicitly.
pub trait Published: Fact + 'static {
    /// The service whose feed it is.
    const NAMES: ServiceNames;

    /// The published part of an event; `None` if it is not published.
    ///
    /// # Errors
    /// Only when a value cannot be JSON.
    fn public_event(event: &Envelope<Self>) -> Result<Option<PublicEvent>, serde_json::Error>;
}

/// Publishes the feed of a peer service.
pub type ServiceFeedPublisher<F> = FeedPublisher<ServiceFeedSource<F>>;

/// What the events of a peer service become.
pub struct ServiceFeedSource<F>(PhantomData<fn() -> F>);

impl<F: Published> ServiceFeedPublisher<F> {
    /// Publishes from one verified stream into another. `name` is the name of the feed's stream.
    #[must_use]
    pub fn new(
        log: EventLog,
        stream: EventLog,
        name: &'static str,
        limits: FollowLimits,
        watch: &Telemetry,
    ) -> Self {
        let filters = vec![F::NAMES.events_filter()];
        let feed = Feed {
            source: ServiceFeedSource(PhantomData),
            logs: vec![SourceLog { log, filters, header: POSITION_HEADER }],
            stream,
            name,
            subjects: F::NAMES.feed_subjects().to_vec(),
            check: "feed",
            parked_list: "",
        };
        Self::of(feed, FollowLimits { parked_max: 0, ..limits }, None, watch)
    }
}

impl<F: Published> FeedSource for ServiceFeedSource<F> {
    type Event = Sequel;

    fn event(&self, message: &Followed) -> Result<Option<Sequel>, DecodeError> {
        let event = Envelope::<F>::from_json(&message.payload)?;
        let Some((name, data)) = F::public_event(&event)? else { return Ok(None) };
        let wire = Wire::of(&event, name, data, message.position);
        let id = ("Nats-Msg-Id", event.id.to_string());
        Ok(Some(Sequel {
            subject: F::NAMES.feed_event(name, &wire.subject),
            payload: serde_json::to_vec(&wire)?.into(),
            headers: vec![(EVENT_TYPE_HEADER, wire.kind), id],
            kept: None,
        }))
    }

    async fn messages(&self, events: Vec<Sequel>) -> Result<Vec<Option<Sequel>>, PublishError> {
        Ok(events.into_iter().map(Some).collect())
    }
}

/// An event of the feed on the wire: CloudEvents 1.0 in JSON, in the form of Roster's own feed.
#[derive(Serialize)]
struct Wire<'a> {
    specversion: &'static str,
    id: String,
    source: &'static str,
    #[serde(rename = "type")]
    kind: String,
    subject: String,
    time: events::Timestamp,
    datacontenttype: &'static str,
    revision: events::Revision,
    /// A decimal string, because an integer of CloudEvents has 32 bits.
    position: String,
    actor: events::Actor,
    commandid: events::CommandId,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlationid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    causationid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<&'a str>,
    data: Value,
}

impl<'a> Wire<'a> {
    fn of<F: Published>(
        event: &'a Envelope<F>,
        name: &str,
        data: Value,
        position: Position,
    ) -> Self {
        Self {
            specversion: "1.0",
            id: event.id.to_string(),
            source: F::SOURCE,
            kind: format!("{}.v1.{name}", F::NAMES.plural()),
            subject: F::subject(&event.after),
            time: event.time,
            datacontenttype: "application/json",
            revision: event.revision(),
            position: position.to_string(),
            actor: event.actor,
            commandid: event.command_id,
            correlationid: event.correlation_id.as_deref(),
            causationid: event.causation_id.as_deref(),
            traceparent: event.traceparent.as_deref(),
            data,
        }
    }
}
