//! Work that is shared out: durable consumers that the operator made, where each message is taken by one
//! process and comes again until somebody says that it is done.
//!
//! Following ([`EventLog::follow`]) is for state, where the position lies beside the data. This is for
//! side effects, which have no place to keep a position in: the server keeps it, message by message. A
//! running service may not make or change such a consumer, since whoever can may also give it another
//! filter.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use async_nats::jetstream::consumer::{PullConsumer, pull};
use async_nats::jetstream::{self, AckKind};
use events::{Position, Timestamp, subjects};
use futures::{Stream, StreamExt};
use serde_json::{Map, Value, json};

use super::foreign::is_foreign;
use super::provision::{MADE_BY_ROSTER, STREAM_NOT_FOUND};
use super::read::refusal;
use super::{EventLog, ProvisionError, ReadError};

/// "consumer not found".
const CONSUMER_NOT_FOUND: u64 = 10014;
/// A message that was taken and not acknowledged for so long comes again.
const ACK_WAIT: Duration = Duration::from_secs(30);
/// How long one request for messages waits for some.
const PULL_EXPIRES: Duration = Duration::from_secs(5);
/// Name of the consumers of the mailer.
const MAILER: &str = "mailer";
/// Events that are being worked on or put off. They are put off only while the bus is in trouble.
const EVENTS_UNDER_WAY_MAX: u32 = 64;
/// Orders that are being worked on or put off. Large, because a recipient whose server says "later" must
/// not hold up everybody else's mail.
const ORDERS_UNDER_WAY_MAX: u32 = 5_000;
/// Name of the consumer of notices.
const NOTICES: &str = "notices";
/// Notices that are being worked on or put off. Larger still: a notice that stands for several waits for its turn.
const NOTICES_UNDER_WAY_MAX: u32 = 20_000;
/// Name of the consumer of what leads to erasures.
const ERASER: &str = "eraser";
/// Erasures that are being worked on or put off. Large, because each is put off once for a minute.
const ERASURES_UNDER_WAY_MAX: u32 = 10_000;

/// How a consumer must be configured.
#[derive(Debug, Clone)]
pub struct ConsumerSpec {
    stream: Cow<'static, str>,
    name: Cow<'static, str>,
    /// The command that makes it.
    made_by: Cow<'static, str>,
    config: Map<String, Value>,
}

impl ConsumerSpec {
    pub(super) fn new(
        stream: &'static str,
        name: impl Into<Cow<'static, str>>,
        filter: &str,
        deliver: &str,
        max: u32,
    ) -> Self {
        let name = name.into();
        let ack_wait = u64::try_from(ACK_WAIT.as_nanos()).unwrap_or(u64::MAX);
        let config = json!({
            "durable_name": name,
            "filter_subject": filter,
            "deliver_policy": deliver,
            "ack_policy": "explicit",
            "ack_wait": ack_wait,
            // Giving up is the service's decision, which then puts the message aside; the server would
            // skip it without a word.
            "max_deliver": -1,
            "max_ack_pending": max,
            "replay_policy": "instant",
        });
        let config = if let Value::Object(config) = config { config } else { Map::new() };
        Self { stream: stream.into(), name, made_by: MADE_BY_ROSTER.into(), config }
    }

    pub(super) fn made_by(mut self, command: String) -> Self {
        self.made_by = command.into();
        self
    }

    /// The same for several filters.
    pub(super) fn with_filters(self, filters: &[&str]) -> Self {
        self.without("filter_subject").with("filter_subjects", json!(filters))
    }

    fn with(mut self, key: &str, value: Value) -> Self {
        self.config.insert(key.to_owned(), value);
        self
    }

    fn without(mut self, key: &str) -> Self {
        self.config.remove(key);
        self
    }

    /// The stream it reads.
    #[must_use]
    pub fn stream(&self) -> &str {
        &self.stream
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is given.
    pub fn filters(&self) -> impl Iterator<Item = &str> {
        let one = self.config.get("filter_subject").and_then(Value::as_str);
        let many = self.config.get("filter_subjects").and_then(Value::as_array);
        one.into_iter().chain(many.into_iter().flatten().filter_map(Value::as_str))
    }

    fn faults(&self, found: &Map<String, Value>) -> Vec<String> {
        let mut faults = Vec::new();
        for (key, wanted) in &self.config {
            if found.get(key) != Some(wanted) {
                let has = found.get(key).map_or_else(|| "nothing".to_owned(), Value::to_string);
                faults.push(format!("{key} is {has} and must be {wanted}"));
            }
        }
        for narrowing in ["filter_subject", "filter_subjects", "deliver_subject", "headers_only"] {
            if found.contains_key(narrowing) && !self.config.contains_key(narrowing) {
                faults.push(format!("{narrowing} must not be set"));
            }
        }
        faults
    }
}

/// The facts about users that may lead to mails. It begins where the log is when it is made: a system
/// that gets its mailer later must not write to everyone who registered before.
#[must_use]
pub fn mailer_events() -> ConsumerSpec {
    let filter = subjects::USER_EVENTS_FILTER;
    ConsumerSpec::new(subjects::USERS_STREAM, MAILER, filter, "new", EVENTS_UNDER_WAY_MAX)
}

/// The orders for mails that somebody waits for. A work queue is read from its start, whatever is in it.
#[must_use]
pub fn mailer_orders() -> ConsumerSpec {
    let filter = subjects::MAIL_ORDERS_FILTER;
    ConsumerSpec::new(subjects::MAILS_STREAM, MAILER, filter, "all", ORDERS_UNDER_WAY_MAX)
}

/// The orders for notices, which have a queue of their own so that no other mail waits behind them.
#[must_use]
pub fn mailer_notices() -> ConsumerSpec {
    let filter = subjects::MAIL_NOTICES_FILTER;
    ConsumerSpec::new(subjects::MAILS_STREAM, NOTICES, filter, "all", NOTICES_UNDER_WAY_MAX)
}

/// What leads to erasures: deletions, and passwords that were replaced. From the start of the log, so that
/// what came before there was an eraser is seen to as well. Without payloads: the type of an event is in its
/// header, and credentials are nobody's business but the command side's.
#[must_use]
pub fn erasures() -> ConsumerSpec {
    let spec = ConsumerSpec::new(subjects::USERS_STREAM, ERASER, "", "all", ERASURES_UNDER_WAY_MAX);
    let filters = [subjects::USER_EVENTS_FILTER, subjects::CREDENTIALS_FILTER];
    spec.with_filters(&filters).with("headers_only", json!(true))
}

/// No work can be had, or the server did not hear that some is done. It comes again.
#[derive(Debug, thiserror::Error)]
#[error("the consumer does not answer: {0}")]
pub struct WorkError(String);

impl WorkError {
    fn from(error: impl ToString) -> Self {
        Self(error.to_string())
    }
}

/// How far a consumer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backlog {
    /// The last message that was given to anybody.
    pub delivered: Position,
    /// Up to where everything is done.
    pub acknowledged: Position,
    /// Messages that nobody was given yet.
    pub pending: u64,
    /// Messages that are being worked on or were put off.
    pub under_way: u64,
}

/// One message to be worked on. Dropping it without a word brings it again.
#[derive(Debug)]
pub struct Task {
    message: jetstream::Message,
    /// Its place in the stream.
    pub position: Position,
    /// When the server stored it.
    pub stored_at: Timestamp,
    /// How often it was given to somebody, this time included.
    pub deliveries: u64,
}

impl Task {
    fn of(message: jetstream::Message) -> Result<Self, WorkError> {
        let info = message.info().map_err(WorkError::from)?;
        // Whichever of its two types async-nats is built with.
        let stored_at = Timestamp::from_datetime(SystemTime::from(info.published).into());
        let (position, deliveries) = (info.stream_sequence, info.delivered);
        Ok(Self {
            position: Position(position),
            stored_at,
            deliveries: u64::try_from(deliveries).unwrap_or(1),
            message,
        })
    }

    /// What it came on.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.message.subject
    }

    /// The value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.message.headers.as_ref()?.get(name).map(async_nats::HeaderValue::as_str)
    }

    /// Whether no writer of the stream wrote it.
    #[must_use]
    pub fn is_foreign(&self) -> bool {
        is_foreign(self.subject(), |name| self.header(name).is_some())
    }

    /// What it holds.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.message.payload
    }

    /// It is done and never comes again; from a work queue it is gone.
    ///
    /// # Errors
    /// [`WorkError`]: the server did not confirm, and it may come again.
    pub async fn ack(self) -> Result<(), WorkError> {
        self.message.double_ack().await.map_err(WorkError::from)
    }

    /// It must come again, so much later.
    ///
    /// # Errors
    /// [`WorkError`]: it comes again when its time to be acknowledged is over.
    pub async fn nak(self, delay: Duration) -> Result<(), WorkError> {
        let nak = AckKind::Nak(Some(delay));
        self.message.double_ack_with(nak).await.map_err(WorkError::from)
    }

    /// It is still being worked on: its time to be acknowledged begins anew.
    ///
    /// # Errors
    /// [`WorkError`]: the server may give it to somebody else meanwhile.
    pub async fn in_progress(&self) -> Result<(), WorkError> {
        self.message.ack_with(AckKind::Progress).await.map_err(WorkError::from)
    }
}

impl EventLog {
    /// Creates a consumer, or brings its configuration to what it must be. Needs the operator's rights.
    ///
    /// # Errors
    /// [`ProvisionError`].
    pub async fn provision_consumer(&self, spec: &ConsumerSpec) -> Result<(), ProvisionError> {
        self.check_server()?;
        match self.verify_consumer(spec).await {
            Err(
                ProvisionError::MissingConsumer { .. } | ProvisionError::DifferentConsumer { .. },
            ) => {}
            known => return known.map(|_| ()),
        }
        let path = format!("CONSUMER.DURABLE.CREATE.{}.{}", spec.stream, spec.name);
        let request = json!({ "stream_name": spec.stream, "config": spec.config });
        let answer = self.request_json(&path, &request).await?;
        if let Some(error) = answer.get("error") {
            return Err(refusal(error).into());
        }
        self.verify_consumer(spec).await.map(|_| ())
    }

    /// Checks a consumer and says how far it is; what the service that uses it does at its start.
    ///
    /// # Errors
    /// [`ProvisionError`] names every difference. Do not start.
    pub async fn verify_consumer(&self, spec: &ConsumerSpec) -> Result<Backlog, ProvisionError> {
        let path = format!("CONSUMER.INFO.{}.{}", spec.stream, spec.name);
        let answer = self.request_json(&path, &json!({})).await?;
        let (stream, consumer) = (spec.stream.clone(), spec.name.clone());
        let made_by = spec.made_by.clone();
        match answer.pointer("/error/err_code").and_then(Value::as_u64) {
            Some(CONSUMER_NOT_FOUND) => {
                return Err(ProvisionError::MissingConsumer { stream, consumer, made_by });
            }
            Some(STREAM_NOT_FOUND) => {
                let made_by = MADE_BY_ROSTER.into();
                return Err(ProvisionError::Missing { stream, made_by });
            }
            _ => {}
        }
        if let Some(error) = answer.get("error") {
            return Err(refusal(error).into());
        }
        let Some(config) = answer.get("config").and_then(Value::as_object) else {
            return Err(ReadError::Refused("no configuration in the answer".to_owned()).into());
        };
        let faults = spec.faults(config);
        if !faults.is_empty() {
            return Err(ProvisionError::DifferentConsumer { stream, consumer, faults });
        }
        let number = |path: &str| answer.pointer(path).and_then(Value::as_u64).unwrap_or(0);
        Ok(Backlog {
            delivered: Position(number("/delivered/stream_seq")),
            acknowledged: Position(number("/ack_floor/stream_seq")),
            pending: number("/num_pending"),
            under_way: number("/num_ack_pending"),
        })
    }

    /// Takes up to so many messages from a consumer; the stream is over after some seconds, or when it
    /// has given them all.
    ///
    /// # Errors
    /// [`WorkError`]: pause and ask again.
    pub async fn take(
        &self,
        spec: &ConsumerSpec,
        messages_max: usize,
    ) -> Result<impl Stream<Item = Result<Task, WorkError>> + Send + 'static, WorkError> {
        if !self.is_connected() {
            return Err(WorkError::from("not connected"));
        }
        let consumer: PullConsumer = jetstream::new(self.client.clone())
            .get_consumer_from_stream::<pull::Config, _, _>(&*spec.name, &*spec.stream)
            .await
            .map_err(WorkError::from)?;
        let messages = consumer
            .batch()
            .max_messages(messages_max)
            .expires(PULL_EXPIRES)
            .messages()
            .await
            .map_err(WorkError::from)?;
        Ok(messages.map(|message| Task::of(message.map_err(WorkError::from)?)))
    }

    /// Takes one message out of the stream and overwrites it. Needs the rights of the operator or of the
    /// reactor. `false` when it was not there.
    ///
    /// # Errors
    /// [`ReadError`]: it may be there still.
    pub async fn erase(&self, position: Position) -> Result<bool, ReadError> {
        let path = format!("STREAM.MSG.DELETE.{}", self.stream);
        let answer = self.request_json(&path, &json!({ "seq": position.0 })).await?;
        match answer.get("error") {
            None => Ok(true),
            Some(error) => match self.at(position).await? {
                None => Ok(false),
                Some(_) => Err(refusal(error)),
            },
        }
    }
}
