//! The four things a subscriber may say to the server: how far are you, give me some, I have it, not now.

use std::io;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, ConnectOptions, Event, HeaderMap, StatusCode, Subject};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{ClientError, Settings};
use crate::feed::{DELETED, FEED_STREAM, SNAPSHOTS_STREAM};
use crate::{Cause, UserId};

/// Headers of which every message of Roster's has one: the type of its event, and the command that wrote it.
const WRITER_HEADERS: [&str; 2] = ["Roster-Event-Type", "Roster-Command-Id"];
/// What the subjects of the JetStream API begin with for a subscriber.
const API_PREFIX: &str = "feed";
/// How long an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How long a message rests that is given back.
const GIVE_BACK_DELAY: Duration = Duration::from_millis(250);
/// How often a consumer is looked for, a second apart, before it counts as not there.
const LOOKS_MAX: usize = 3;
/// How often a question that got no answer is asked again before the start is given up.
const QUESTIONS_MAX: usize = 4;
/// "consumer not found" and "stream not found".
const NOT_FOUND: [u64; 2] = [10014, 10059];
/// Of a consumer that does not say.
const ACK_WAIT: Duration = Duration::from_secs(30);

/// One of the two streams that a subscriber reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Source {
    Snapshots,
    Feed,
}

impl Source {
    pub(super) const fn stream(self) -> &'static str {
        match self {
            Self::Snapshots => SNAPSHOTS_STREAM,
            Self::Feed => FEED_STREAM,
        }
    }
}

/// What the server says about a consumer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Consumer {
    pub(super) ack_wait: Duration,
    /// How many may be unacknowledged; `None` for no limit.
    pub(super) ack_pending_max: Option<usize>,
    /// Messages that it has for somebody, those included that are being worked on.
    pub(super) left: u64,
    /// Messages that it waits to be acknowledged.
    pub(super) unacknowledged: u64,
    /// Up to here in the stream all are acknowledged.
    pub(super) floor: u64,
}

/// Which message it is, whatever stream of that name there was before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) sequence: u64,
    stored_at_ns: u64,
}

/// One message that the server gave out.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) key: Key,
    /// Messages behind it that nobody was given yet.
    pub(super) pending: u64,
    pub(super) subject: String,
    pub(super) user: UserId,
    pub(super) reply: Subject,
    pub(super) payload: Vec<u8>,
    is_deletion: bool,
    is_foreign: bool,
}

impl Delivery {
    /// Whether it says that its user is gone.
    pub(super) fn is_deletion(&self) -> bool {
        self.is_deletion
    }

    /// Whether Roster did not write it: then it is about nobody.
    pub(super) fn is_foreign(&self) -> bool {
        self.is_foreign
    }
}

/// What came on the inbox.
#[derive(Debug)]
pub(super) enum Arrival {
    Message(Delivery),
    /// The server works on the request still.
    Alive,
    /// The request is over: answered in part, or not at all.
    Over,
    /// The request could not be served.
    Refused(String),
}

#[derive(Debug, Clone)]
pub(super) struct Wire {
    client: Client,
    name: String,
}

impl Wire {
    pub(super) async fn connect(settings: &Settings) -> Result<Self, ClientError> {
        let Settings { server, name, creds, ca_file, .. } = settings;
        if !crate::feed::is_subscriber_name(name) {
            return Err(ClientError::Name(name.clone()));
        }
        let mut options = with_creds(creds)
            .await
            .map_err(|source| ClientError::Creds { path: creds.clone(), source })?
            .name(format!("roster-subscriber-{name}"))
            .custom_inbox_prefix(format!("_INBOX_{name}"))
            .event_callback(report);
        if let Some(ca_file) = ca_file {
            options = options.add_root_certificates(ca_file.clone());
        }
        let client = options
            .connect(server.split(',').collect::<Vec<_>>())
            .await
            .map_err(|source| ClientError::Connect { server: server.clone(), source })?;
        Ok(Self { client, name: name.clone() })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Goes up with every connection that is made: requests for messages die with theirs.
    pub(super) fn connections(&self) -> u64 {
        self.client.statistics().connects.load(Ordering::Relaxed)
    }

    pub(super) fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// What the server says about a consumer; `None` when there is none.
    pub(super) async fn consumer(&self, source: Source) -> Result<Option<Consumer>, ClientError> {
        let mut looks = 0;
        let mut questions = 0;
        loop {
            match self.ask_for_consumer(source).await {
                Ok(Some(consumer)) => return Ok(Some(consumer)),
                // A server that has just started may not know its consumers yet.
                Ok(None) if source == Source::Feed && looks + 1 < LOOKS_MAX => looks += 1,
                Ok(None) => return Ok(None),
                Err(_) if questions + 1 < QUESTIONS_MAX => questions += 1,
                Err(error) => return Err(error),
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// The same, asked once.
    pub(super) async fn ask_for_consumer(
        &self,
        source: Source,
    ) -> Result<Option<Consumer>, ClientError> {
        let subject = self.api("CONSUMER.INFO", source);
        let answer = self.request(subject, Vec::new()).await?;
        let answer: Value = serde_json::from_slice(&answer)
            .map_err(|_| ClientError::Server("an answer that is no JSON".to_owned()))?;
        let number = |path: &str| answer.pointer(path).and_then(Value::as_u64);
        if let Some(code) = number("/error/err_code") {
            if NOT_FOUND.contains(&code) {
                return Ok(None);
            }
            return Err(ClientError::Server(format!("error {code} about the consumer")));
        }
        if number("/num_pending").is_none() {
            return Err(ClientError::Server("no consumer in the answer".to_owned()));
        }
        let ack_wait = number("/config/ack_wait").filter(|nanoseconds| *nanoseconds > 0);
        let unacknowledged = number("/num_ack_pending").unwrap_or(0);
        Ok(Some(Consumer {
            ack_wait: ack_wait.map_or(ACK_WAIT, Duration::from_nanos),
            ack_pending_max: number("/config/max_ack_pending")
                .and_then(|max| usize::try_from(max).ok())
                .filter(|max| *max > 0),
            left: number("/num_pending").unwrap_or(0).saturating_add(unacknowledged),
            unacknowledged,
            floor: number("/ack_floor/stream_seq").unwrap_or(0),
        }))
    }

    /// A place where messages arrive. Not one that is shared with other answers: a message comes under the
    /// subject it was published on, and nothing in it says whose answer it is.
    pub(super) async fn inbox(&self) -> Result<(Subject, async_nats::Subscriber), ClientError> {
        let inbox = Subject::from(self.client.new_inbox());
        let arrivals = self.client.subscribe(inbox.clone()).await;
        Ok((inbox, arrivals.map_err(|_| ClientError::Closed)?))
    }

    /// Asks for messages.
    pub(super) async fn pull(
        &self,
        source: Source,
        inbox: &Subject,
        messages: usize,
        expires: Duration,
    ) -> Result<(), ClientError> {
        let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let request = json!({
            "batch": messages,
            "expires": nanoseconds(expires),
            "idle_heartbeat": nanoseconds(expires / 4),
        });
        let subject = self.api("CONSUMER.MSG.NEXT", source);
        self.publish(subject.into(), Some(inbox), request.to_string().into_bytes()).await
    }

    /// Tells a message from what the server says about a request.
    pub(super) fn read(message: async_nats::Message) -> Arrival {
        match message.status {
            None => delivery(message).map_or_else(
                || Arrival::Refused("a message without its place in the stream".to_owned()),
                Arrival::Message,
            ),
            Some(StatusCode::IDLE_HEARTBEAT) => Arrival::Alive,
            Some(StatusCode::TIMEOUT | StatusCode::NOT_FOUND) => Arrival::Over,
            Some(status) => {
                let why = message.description.unwrap_or_default();
                Arrival::Refused(format!("{status} {why}"))
            }
        }
    }

    /// It is handled; `true` when the server has confirmed that it knows.
    pub(super) async fn ack(&self, reply: &Subject) -> bool {
        self.request(reply.to_string(), b"+ACK".to_vec()).await.is_ok()
    }

    /// It was confirmed before, to a server that may have forgotten it.
    pub(super) async fn ack_again(&self, reply: &Subject) -> Result<(), ClientError> {
        self.publish(reply.clone(), None, b"+ACK".to_vec()).await
    }

    /// It is being worked on still: its time to be acknowledged begins anew.
    pub(super) async fn in_progress(&self, reply: &Subject) -> Result<(), ClientError> {
        self.publish(reply.clone(), None, b"+WPI".to_vec()).await
    }

    /// It shall come again soon: when the server has seen that a connection is over that was given up a
    /// moment ago.
    pub(super) async fn give_back(&self, reply: &Subject) -> Result<(), ClientError> {
        let delay = u64::try_from(GIVE_BACK_DELAY.as_nanos()).unwrap_or(u64::MAX);
        let answer = format!("-NAK {}", json!({ "delay": delay }));
        self.publish(reply.clone(), None, answer.into_bytes()).await
    }

    /// Gives the connection up for another one, which ends all requests for messages.
    pub(super) async fn reconnect(&self, limit: Duration) {
        let before = self.connections();
        let again = async {
            if self.client.force_reconnect().await.is_err() {
                return;
            }
            while self.connections() == before {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        // Without a server there are no requests either.
        let _ = timeout(limit, again).await;
    }

    /// Sends what is in the client's buffer.
    pub(super) async fn flush(&self) {
        // When there is no connection, whatever was to be said is said by time running out.
        let _ = timeout(ANSWER_MAX, self.client.flush()).await;
    }

    fn api(&self, what: &str, source: Source) -> String {
        format!("{API_PREFIX}.{what}.{}.{}", source.stream(), self.name)
    }

    #[expect(clippy::disallowed_methods, reason = "a subscriber can write to no log")]
    async fn request(&self, subject: String, payload: Vec<u8>) -> Result<Vec<u8>, ClientError> {
        let answer = timeout(ANSWER_MAX, self.client.request(subject, payload.into())).await;
        match answer {
            Ok(Ok(answer)) => Ok(answer.payload.to_vec()),
            Ok(Err(error)) => Err(ClientError::Server(error.to_string())),
            Err(_) => Err(ClientError::Server(format!("no answer within {ANSWER_MAX:?}"))),
        }
    }

    #[expect(clippy::disallowed_methods, reason = "a subscriber can write to no log")]
    async fn publish(
        &self,
        subject: Subject,
        reply: Option<&Subject>,
        payload: Vec<u8>,
    ) -> Result<(), ClientError> {
        let sent = match reply {
            Some(reply) => {
                self.client.publish_with_reply(subject, reply.clone(), payload.into()).await
            }
            None => self.client.publish(subject, payload.into()).await,
        };
        sent.map_err(|_| ClientError::Closed)
    }
}

async fn with_creds(path: &Path) -> io::Result<ConnectOptions> {
    ConnectOptions::with_credentials_file(path).await
}

async fn report(event: Event) {
    match event {
        Event::Disconnected => tracing::warn!("the connection to NATS is lost"),
        Event::Connected => tracing::info!("connected to NATS"),
        Event::ServerError(error) => tracing::error!(%error, "NATS refused something"),
        Event::ClientError(error) => tracing::warn!(%error, "the connection to NATS is in trouble"),
        Event::SlowConsumer(_) | Event::LameDuckMode | Event::Draining | Event::Closed => {}
    }
}

/// A message with its place, which stands in the subject of its acknowledgement: in nine tokens, or in
/// eleven and more with domain and account before them.
fn delivery(message: async_nats::Message) -> Option<Delivery> {
    let reply = message.reply?;
    let tokens: Vec<&str> = reply.split('.').collect();
    // $JS ACK [domain account] stream consumer deliveries sequence count time pending [more]
    let first = if tokens.len() >= 11 { 4 } else { 2 };
    let number = |at: usize| tokens.get(first + at).and_then(|token| token.parse::<u64>().ok());
    let key = Key { sequence: number(3)?, stored_at_ns: number(5)? };
    let pending = number(6)?;
    let subject = message.subject.to_string();
    let user = subject.rsplit('.').next().and_then(|token| token.parse().ok());
    // What is replayed stands on the subject of the queue, whatever it is.
    let is_replayed = subject.starts_with("snapshot.");
    let replayed = is_replayed.then(|| Cause::of(&message.payload)).flatten();
    let is_foreign = is_foreign(message.headers.as_ref(), &message.payload);
    let is_deletion = !is_foreign
        && (subject.starts_with("users.v1.deleted.")
            || replayed.is_some_and(|replayed| replayed.kind == DELETED));
    Some(Delivery {
        key,
        pending,
        user: user.unwrap_or_else(|| UserId::from_uuid(uuid::Uuid::nil())),
        subject,
        reply,
        payload: message.payload.to_vec(),
        is_deletion,
        is_foreign,
    })
}

/// Whether a message is not Roster's: it names neither the type nor the command that all of Roster's name, and is no
/// CloudEvent. An event that is damaged has the first and is parked.
fn is_foreign(headers: Option<&HeaderMap>, payload: &[u8]) -> bool {
    let has = |name: &str| headers.is_some_and(|headers| headers.get(name).is_some());
    let is_event = || {
        let payload = serde_json::from_slice::<Value>(payload);
        payload.is_ok_and(|event| event.get("specversion").is_some())
    };
    !WRITER_HEADERS.iter().any(|header| has(header)) && !is_event()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(subject: &str, reply: &str) -> Option<Delivery> {
        // As all of Roster's messages have.
        let mut headers = HeaderMap::new();
        headers.insert("Roster-Event-Type", "users.v1.deleted");
        delivery(async_nats::Message {
            subject: subject.into(),
            reply: Some(reply.into()),
            payload: "{}".into(),
            headers: Some(headers),
            status: None,
            description: None,
            length: 0,
        })
    }

    #[test]
    fn the_place_of_a_message_is_read_in_both_forms() {
        let user = "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b";
        let subject = format!("users.v1.deleted.{user}");
        for reply in [
            "$JS.ACK.USER_EVENTS.mailer.2.17.19.1795537322099872607.240",
            "$JS.ACK.hub.hash.USER_EVENTS.mailer.2.17.19.1795537322099872607.240",
            "$JS.ACK.hub.hash.USER_EVENTS.mailer.2.17.19.1795537322099872607.240.token",
        ] {
            let read = read(&subject, reply).unwrap();
            let key = Key { sequence: 17, stored_at_ns: 1_795_537_322_099_872_607 };
            assert_eq!((read.key, read.pending), (key, 240), "{reply}");
            assert_eq!(read.user.to_string(), user);
            assert!(read.is_deletion());
        }
        assert!(read(&subject, "_INBOX.x").is_none());
    }
}
