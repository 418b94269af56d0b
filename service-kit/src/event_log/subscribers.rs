//! The consumers of those who subscribe to the feed: made, listed and removed by the operator alone.
//!
//! A subscriber never makes its own: to create a consumer is to change one by name, so whoever may create may
//! also give another's a filter of its choice.

use std::collections::BTreeMap;
use std::time::Duration;

use events::feed::{FEED_STREAM, SNAPSHOTS_STREAM, snapshots_for};
use events::{Position, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};

use super::read::refusal;
use super::{EventLog, ReadError};

/// "consumer not found".
const CONSUMER_NOT_FOUND: u64 = 10014;
/// Member of the metadata by which a consumer is known as one of these; its value is where it began.
const FROM: &str = "roster_from";

/// Where a subscriber begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beginning {
    /// With the first event that there is.
    Start,
    /// With what is told from now on.
    Now,
    /// With this sequence of the feed.
    Sequence(Position),
    /// With what was told at this time or later.
    Time(Timestamp),
}

/// A subscriber as it is to be made.
#[derive(Debug, Clone)]
pub struct NewSubscriber<'a> {
    /// Its name, which fits into a subject.
    pub name: &'a str,
    /// What it is given.
    pub filters: &'a [String],
    /// Where it begins.
    pub beginning: Beginning,
    /// How its beginning is shown.
    pub from: &'a str,
    /// Messages it may have at once without having acknowledged them. With 1 the order holds whatever
    /// happens.
    pub in_flight: u32,
    /// A message that was taken and not acknowledged for so long comes again.
    pub ack_wait: Duration,
}

/// A subscriber as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscriber {
    /// Its name.
    pub name: String,
    /// What it is given.
    pub filters: Vec<String>,
    /// Where it began.
    pub from: String,
    /// Messages it may have at once.
    pub in_flight: u64,
    /// A message that was taken and not acknowledged for so long comes again.
    pub ack_wait: Duration,
    /// When it was made.
    pub created_at: Timestamp,
    /// Messages that it was not given yet.
    pub pending: u64,
    /// Messages that it has and did not acknowledge.
    pub unacknowledged: u64,
    /// Of these, those that it was given more than once.
    pub redelivered: u64,
    /// Requests for messages that wait: 0 when it is away.
    pub waiting: u64,
    /// Everything up to here is acknowledged.
    pub acknowledged: Position,
    /// When something was acknowledged last.
    pub acknowledged_at: Option<Timestamp>,
}

#[derive(Deserialize)]
struct Info {
    name: String,
    created: Timestamp,
    config: Config,
    num_pending: u64,
    num_ack_pending: u64,
    num_redelivered: u64,
    num_waiting: u64,
    ack_floor: Floor,
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    filter_subject: Option<String>,
    #[serde(default)]
    filter_subjects: Vec<String>,
    #[serde(default)]
    max_ack_pending: u64,
    #[serde(default)]
    ack_wait: u64,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Floor {
    stream_seq: u64,
    last_active: Option<Timestamp>,
}

#[derive(Deserialize)]
struct Page {
    total: usize,
    consumers: Vec<Info>,
}

impl Info {
    /// `None` when it is no consumer of a subscriber.
    fn subscriber(self) -> Option<Subscriber> {
        let from = self.config.metadata.get(FROM)?.clone();
        let mut filters = self.config.filter_subjects;
        filters.extend(self.config.filter_subject);
        Some(Subscriber {
            name: self.name,
            filters,
            from,
            in_flight: self.config.max_ack_pending,
            ack_wait: Duration::from_nanos(self.config.ack_wait),
            created_at: self.created,
            pending: self.num_pending,
            unacknowledged: self.num_ack_pending,
            redelivered: self.num_redelivered,
            waiting: self.num_waiting,
            acknowledged: Position(self.ack_floor.stream_seq),
            acknowledged_at: self.ack_floor.last_active,
        })
    }
}

impl EventLog {
    /// Makes the consumer of a subscriber on the feed. There must be none of its name.
    ///
    /// # Errors
    /// [`ReadError`]: there is none, or nobody knows.
    pub async fn add_subscriber(&self, subscriber: &NewSubscriber<'_>) -> Result<(), ReadError> {
        let (policy, at) = match subscriber.beginning {
            Beginning::Start => ("all", None),
            Beginning::Now => ("new", None),
            Beginning::Sequence(position) => {
                ("by_start_sequence", Some(("opt_start_seq", json!(position.0.max(1)))))
            }
            Beginning::Time(time) => ("by_start_time", Some(("opt_start_time", json!(time)))),
        };
        let mut more = vec![
            ("deliver_policy", json!(policy)),
            ("filter_subjects", json!(subscriber.filters)),
            ("metadata", json!({ FROM: subscriber.from })),
        ];
        more.extend(at);
        let config = consumer(subscriber.name, subscriber.in_flight, subscriber.ack_wait, more);
        self.create_consumer(FEED_STREAM, subscriber.name, &config).await
    }

    /// Makes the consumer of the states that a subscriber begins with.
    ///
    /// # Errors
    /// [`ReadError`]: there is none, or nobody knows.
    pub async fn add_snapshot_consumer(
        &self,
        name: &str,
        ack_wait: Duration,
    ) -> Result<(), ReadError> {
        let all =
            [("deliver_policy", json!("all")), ("filter_subject", json!(snapshots_for(name)))];
        let config = consumer(name, 1, ack_wait, all);
        self.create_consumer(SNAPSHOTS_STREAM, name, &config).await
    }

    /// The same, unless it is there.
    ///
    /// # Errors
    /// [`ReadError`]: there is none, or nobody knows.
    pub async fn ensure_snapshot_consumer(
        &self,
        name: &str,
        ack_wait: Duration,
    ) -> Result<(), ReadError> {
        let path = format!("CONSUMER.INFO.{SNAPSHOTS_STREAM}.{name}");
        let answer = self.request_json(&path, &json!({})).await?;
        match answer.get("error") {
            None => Ok(()),
            Some(error) if is_missing(error) => self.add_snapshot_consumer(name, ack_wait).await,
            Some(error) => Err(refusal(error)),
        }
    }

    async fn create_consumer(
        &self,
        stream: &str,
        name: &str,
        config: &Value,
    ) -> Result<(), ReadError> {
        let path = format!("CONSUMER.DURABLE.CREATE.{stream}.{name}");
        let request = json!({ "stream_name": stream, "config": config, "action": "create" });
        let answer = self.request_json(&path, &request).await?;
        answer.get("error").map_or(Ok(()), |error| Err(refusal(error)))
    }

    /// The subscriber of a name, if there is one.
    ///
    /// # Errors
    /// [`ReadError`]: nobody knows.
    pub async fn subscriber(&self, name: &str) -> Result<Option<Subscriber>, ReadError> {
        let path = format!("CONSUMER.INFO.{FEED_STREAM}.{name}");
        let answer = self.request_json(&path, &json!({})).await?;
        match answer.get("error") {
            Some(error) if is_missing(error) => Ok(None),
            Some(error) => Err(refusal(error)),
            None => {
                let info: Info = serde_json::from_value(answer).map_err(unreadable)?;
                Ok(info.subscriber())
            }
        }
    }

    /// All subscribers, by name.
    ///
    /// # Errors
    /// [`ReadError`]: nobody knows.
    pub async fn subscribers(&self) -> Result<Vec<Subscriber>, ReadError> {
        let (mut found, mut offset) = (Vec::new(), 0);
        loop {
            let path = format!("CONSUMER.LIST.{FEED_STREAM}");
            let answer = self.request_json(&path, &json!({ "offset": offset })).await?;
            if let Some(error) = answer.get("error") {
                return Err(refusal(error));
            }
            let page: Page = serde_json::from_value(answer).map_err(unreadable)?;
            offset += page.consumers.len();
            let is_last = page.consumers.is_empty() || offset >= page.total;
            found.extend(page.consumers.into_iter().filter_map(Info::subscriber));
            if is_last {
                found.sort_by(|one: &Subscriber, other| one.name.cmp(&other.name));
                return Ok(found);
            }
        }
    }

    /// Removes what there is of a subscriber: its consumers and the states it did not fetch. `false` when
    /// there was no consumer.
    ///
    /// # Errors
    /// [`ReadError`]: some of it may be left; remove it again.
    pub async fn remove_subscriber(&self, name: &str) -> Result<bool, ReadError> {
        let mut found = false;
        for stream in [SNAPSHOTS_STREAM, FEED_STREAM] {
            let path = format!("CONSUMER.DELETE.{stream}.{name}");
            let answer = self.request_json(&path, &json!({})).await?;
            match answer.get("error") {
                None => found = true,
                Some(error) if is_missing(error) => {}
                Some(error) => return Err(refusal(error)),
            }
        }
        self.drop_snapshots(name).await?;
        Ok(found)
    }

    /// Removes the states that wait for a subscriber.
    ///
    /// # Errors
    /// [`ReadError`]: some may be left.
    pub async fn drop_snapshots(&self, name: &str) -> Result<(), ReadError> {
        let path = format!("STREAM.PURGE.{SNAPSHOTS_STREAM}");
        let answer = self.request_json(&path, &json!({ "filter": snapshots_for(name) })).await?;
        answer.get("error").map_or(Ok(()), |error| Err(refusal(error)))
    }
}

fn consumer(
    name: &str,
    in_flight: u32,
    ack_wait: Duration,
    more: impl IntoIterator<Item = (&'static str, Value)>,
) -> Value {
    let ack_wait = u64::try_from(ack_wait.as_nanos()).unwrap_or(u64::MAX);
    let members = [
        ("durable_name", json!(name)),
        ("name", json!(name)),
        ("ack_policy", json!("explicit")),
        ("ack_wait", json!(ack_wait)),
        // Giving up is the subscriber's decision; the server would skip a message without a word.
        ("max_deliver", json!(-1)),
        ("max_ack_pending", json!(in_flight)),
        ("replay_policy", json!("instant")),
    ];
    let members = members.into_iter().chain(more);
    Value::Object(members.map(|(member, value)| (member.to_owned(), value)).collect())
}

fn is_missing(error: &Value) -> bool {
    error.get("err_code").and_then(Value::as_u64) == Some(CONSUMER_NOT_FOUND)
}

fn unreadable(error: serde_json::Error) -> ReadError {
    ReadError::Refused(error.to_string())
}
