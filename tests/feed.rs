//! The feed as an operator reads it.

use std::time::Duration;

use async_nats::jetstream::{self, consumer::pull::OrderedConfig};
use events::feed::FeedEvent;
use futures::StreamExt;
use tokio::time::timeout;

use crate::System;

/// Time for the next message of a stream that has one.
const MESSAGE_MAX: Duration = Duration::from_secs(20);

impl System {
    /// Everything that stands in the feed, in order, with its subjects.
    pub async fn feed(&self) -> Vec<(String, FeedEvent)> {
        let context = jetstream::new(self.operator().await);
        let stream = context.get_stream("USER_EVENTS").await.unwrap();
        let mut consumer = stream.create_consumer(OrderedConfig::default()).await.unwrap();
        let mut left = consumer.info().await.unwrap().num_pending;
        let mut messages = consumer.messages().await.unwrap();
        let mut events = Vec::new();
        while left > 0 {
            let message = timeout(MESSAGE_MAX, messages.next()).await.unwrap().unwrap().unwrap();
            left = message.info().unwrap().pending;
            let event = FeedEvent::from_json(&message.payload).unwrap();
            events.push((message.subject.to_string(), event));
        }
        events
    }

    /// How many states wait for subscribers.
    pub async fn snapshots_waiting(&self) -> u64 {
        let context = jetstream::new(self.operator().await);
        let stream = context.get_stream("USER_SNAPSHOTS").await.unwrap();
        stream.get_info().await.unwrap().state.messages
    }
}
