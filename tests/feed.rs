//! The feed as an operator reads it.

use async_nats::jetstream;
use events::feed::FeedEvent;

use crate::{System, read_stream};

impl System {
    /// Everything that stands in the feed, in order, with its subjects.
    pub async fn feed(&self) -> Vec<(String, FeedEvent)> {
        let context = jetstream::new(self.operator().await);
        let messages = read_stream(&context, "USER_EVENTS", ">").await;
        let read = messages.into_iter().map(|message| {
            let event = FeedEvent::from_json(&message.payload).unwrap();
            (message.subject.to_string(), event)
        });
        read.collect()
    }

    /// How many states wait for subscribers.
    pub async fn snapshots_waiting(&self) -> u64 {
        let context = jetstream::new(self.operator().await);
        let stream = context.get_stream("USER_SNAPSHOTS").await.unwrap();
        stream.get_info().await.unwrap().state.messages
    }
}
