//! What a rebuild cannot be faster than: reading the log alone, and writing the documents alone.

use std::time::{Duration, Instant};

use async_nats::jetstream::{self, consumer::AckPolicy, consumer::pull};
use e2e::System;
use futures::{StreamExt, TryStreamExt};
use mongodb::bson::Document;
use mongodb::options::InsertManyOptions;
use tokio::task::JoinSet;

use crate::{indexes_of, rate};

/// Messages asked for at once.
const PULL: usize = 5_000;
/// Documents in one write.
const BULK: usize = 1_000;
/// Writes at once.
const AT_ONCE: usize = 4;

/// Events a second.
pub async fn read_the_log(system: &System, events: u64) -> f64 {
    let context = jetstream::new(system.operator().await);
    let stream = context.get_stream("USERS").await.unwrap();
    let config = pull::Config {
        filter_subject: "ev.user.*".to_owned(),
        ack_policy: AckPolicy::None,
        memory_storage: true,
        ..pull::Config::default()
    };
    let consumer = stream.create_consumer(config).await.unwrap();
    let mut messages = consumer.stream().max_messages_per_batch(PULL).messages().await.unwrap();
    let began = Instant::now();
    for _ in 0..events {
        messages.next().await.unwrap().unwrap();
    }
    let took = began.elapsed();
    rate("ceiling: events read from the log alone", events, took);
    events as f64 / took.as_secs_f64()
}

/// Events a second whose documents, of users and of what happened to them, are written to empty collections with
/// the same indexes.
pub async fn write_documents(system: &System) -> f64 {
    let views = system.views().await;
    let (mut took, mut events, mut documents) = (Duration::ZERO, 0, 0_u64);
    for name in ["users_1", "user_history_1"] {
        let from = views.collection::<Document>(name);
        let to = views.collection::<Document>(&format!("ceiling_of_{name}"));
        to.create_indexes(indexes_of(&from).await).await.unwrap();
        let mut chunks = from.find(Document::new()).await.unwrap().try_chunks(BULK * AT_ONCE);
        while let Some(chunk) = chunks.try_next().await.unwrap() {
            documents += chunk.len() as u64;
            events += if name == "users_1" { 0 } else { chunk.len() as u64 };
            let parts: Vec<Vec<Document>> = chunk.chunks(BULK).map(<[Document]>::to_vec).collect();
            let began = Instant::now();
            let mut writes = JoinSet::new();
            for part in parts {
                let to = to.clone();
                let unordered = InsertManyOptions::builder().ordered(false).build();
                writes.spawn(
                    async move { to.insert_many(part).with_options(unordered).await.unwrap() },
                );
            }
            writes.join_all().await;
            took += began.elapsed();
        }
        to.drop().await.unwrap();
    }
    rate("ceiling: documents written to the database alone", documents, took);
    events as f64 / took.as_secs_f64()
}
