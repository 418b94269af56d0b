//! Another service that reads the feed, as far as a test needs one: it knows subjects and nothing of Roster's
//! client.

#![allow(
    clippy::disallowed_methods,
    reason = "a subscriber asks and acknowledges, and writes nothing"
)]

use std::time::Duration;

use async_nats::{Client, ConnectOptions, Message, Subscriber as Answers};
use events::feed::FeedEvent;
use futures::{FutureExt, StreamExt};
use tokio::time::timeout;

use crate::System;

/// Time for an event that must come.
const EVENT_MAX: Duration = Duration::from_secs(60);
/// Messages asked for at once; the server gives as many as it may have unacknowledged.
const PULL_MESSAGES: usize = 200;
/// Such a request.
const PULL: &str = r#"{"batch":200,"expires":20000000000}"#;

/// One subscriber with its credentials.
pub struct Subscriber {
    client: Client,
    name: String,
    stream: &'static str,
    answers: Answers,
    inbox: String,
    /// How many messages are asked for and did not come yet.
    asked: usize,
}

/// An event as it came.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// Its subject.
    pub subject: String,
    /// Its sequence in the stream.
    pub sequence: u64,
    /// How often it was given to this subscriber.
    pub deliveries: u64,
    /// What it says.
    pub event: FeedEvent,
}

impl Told {
    /// Its type without the version: `users.registered`.
    #[must_use]
    pub fn kind(&self) -> String {
        self.event.happened.kind().replace(".v1.", ".")
    }
}

impl System {
    /// Adds a subscriber with the operator's command, and connects as it.
    pub async fn subscriber(&self, name: &str, arguments: &[&str]) -> Subscriber {
        let mut command = vec!["subscribers", "add", name];
        command.extend(arguments);
        let output = self.roster(&command);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(said.contains(&format!("subscriber={name} stream=USER_EVENTS")), "{said}");
        self.subscriber_again(name, "USER_EVENTS").await
    }

    /// Connects as a subscriber that was added before.
    pub async fn subscriber_again(&self, name: &str, stream: &'static str) -> Subscriber {
        let creds = std::fs::read_to_string(self.file(&format!("{name}.creds"))).unwrap();
        let client = ConnectOptions::with_credentials(&creds)
            .unwrap()
            .custom_inbox_prefix(format!("_INBOX_{name}"))
            .connect(self.nats_url().split(',').collect::<Vec<_>>())
            .await
            .unwrap();
        let inbox = client.new_inbox();
        let answers = client.subscribe(inbox.clone()).await.unwrap();
        let name = name.to_owned();
        let mut subscriber = Subscriber { client, name, stream, answers, inbox, asked: 0 };
        subscriber.pull().await;
        subscriber
    }
}

impl Subscriber {
    /// The next event, not acknowledged yet; fails when none comes.
    pub async fn next(&mut self) -> (Told, Message) {
        let next = timeout(EVENT_MAX, self.next_or_nothing()).await;
        next.unwrap_or_else(|_| panic!("no event for {}", self.name))
    }

    async fn next_or_nothing(&mut self) -> (Told, Message) {
        loop {
            // A request that is over, or that a server forgot when it died, is sent again.
            let answer = timeout(Duration::from_millis(500), self.answers.next()).await;
            let Ok(message) = answer else {
                self.pull().await;
                continue;
            };
            let message = message.unwrap();
            if message.status.is_some() {
                self.pull().await;
                continue;
            }
            self.asked = self.asked.saturating_sub(1);
            if self.asked < PULL_MESSAGES / 2 {
                self.pull().await;
            }
            return (told(&message), message);
        }
    }

    async fn pull(&mut self) {
        self.asked = PULL_MESSAGES;
        let next = format!("feed.CONSUMER.MSG.NEXT.{}.{}", self.stream, self.name);
        let (reply, pull) = (self.inbox.clone(), PULL.into());
        self.client.publish_with_reply(next, reply, pull).await.unwrap();
    }

    /// Says that an event is done.
    pub async fn done(&self, message: &Message) {
        let reply = message.reply.clone().unwrap();
        self.client.publish(reply, "+ACK".into()).await.unwrap();
    }

    /// The next events up to one for which `is_last` holds, each acknowledged.
    pub async fn take_until(&mut self, is_last: impl Fn(&Told) -> bool) -> Vec<Told> {
        let mut events = Vec::new();
        loop {
            let (told, message) = self.next().await;
            self.done(&message).await;
            let last = is_last(&told);
            events.push(told);
            if last {
                return events;
            }
        }
    }

    /// Whether there is nothing for it: neither for a request that still waits, nor for one that is answered at
    /// once.
    pub async fn hears_nothing(&mut self) -> bool {
        let next = format!("feed.CONSUMER.MSG.NEXT.{}.{}", self.stream, self.name);
        let (reply, pull) = (self.client.new_inbox(), r#"{"batch":1,"no_wait":true}"#.into());
        let mut answers = self.client.subscribe(reply.clone()).await.unwrap();
        self.client.publish_with_reply(next, reply, pull).await.unwrap();
        let answer = timeout(Duration::from_secs(5), answers.next()).await;
        let is_event = |message: &Message| message.status.is_none();
        let heard = answer.ok().flatten().is_some_and(|message| is_event(&message));
        // What it was given for an earlier request came before that answer.
        let mut earlier = false;
        while let Some(Some(message)) = self.answers.next().now_or_never() {
            earlier |= is_event(&message);
        }
        !heard && !earlier
    }
}

fn told(message: &Message) -> Told {
    // $JS.ACK.<stream>.<consumer>.<deliveries>.<stream sequence>.<consumer sequence>.<time>.<pending>
    let reply = message.reply.as_ref().unwrap().to_string();
    let number = |n: usize| reply.split('.').nth(n).unwrap().parse().unwrap();
    Told {
        subject: message.subject.to_string(),
        sequence: number(5),
        deliveries: number(4),
        event: FeedEvent::from_json(&message.payload).unwrap(),
    }
}
