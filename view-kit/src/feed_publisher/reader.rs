//! Reading the logs of a feed in one order.

use std::collections::VecDeque;
use std::time::Duration;

use events::Position;
use futures::StreamExt;
use futures::future::select_all;
use futures::stream::{BoxStream, ReadyChunks};
use service_kit::event_log::{FollowError, Followed, Start};
use tokio::time::timeout;

use super::{FeedEnd, PublishError, SourceLog};
use crate::batch::until_failure;

/// How long an event that is in the log may take to arrive.
const ARRIVAL_MAX: Duration = Duration::from_secs(10);

/// A message of one of the logs.
pub(super) struct SourceMessage {
    /// The number of the log.
    pub(super) log: usize,
    pub(super) followed: Followed,
}

/// The logs, read from where the feed ends, merged into one order.
pub(super) struct Reader<'a>(Vec<LogReader<'a>>);

/// One of the logs.
struct LogReader<'a> {
    source: &'a SourceLog,
    chunks: ReadyChunks<BoxStream<'static, Result<Followed, FollowError>>>,
    /// Messages that arrived and are not processed yet.
    held: VecDeque<Followed>,
    /// Why nothing arrives after them.
    failure: Option<FollowError>,
    /// The position of the last message that arrived.
    position: Position,
    /// The number of messages after it when it was sent.
    pending: u64,
}

impl<'a> LogReader<'a> {
    async fn open(
        source: &'a SourceLog,
        behind: Position,
        batch_max: usize,
    ) -> Result<Self, FollowError> {
        let filters: Vec<&str> = source.filters.iter().map(String::as_str).collect();
        let following = source.log.follow(&filters, Start::Behind(behind)).await?;
        Ok(Self {
            source,
            chunks: following.messages.ready_chunks(batch_max),
            held: VecDeque::new(),
            failure: None,
            position: behind,
            pending: following.pending,
        })
    }

    /// Waits for at least one message. Messages that arrived before a failure are processed before it is reported.
    /// Cancel-safe.
    async fn fill(&mut self) -> Result<(), FollowError> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        let (messages, failure) = until_failure(self.chunks.next().await.unwrap_or_default());
        match messages.last() {
            Some(last) => (self.position, self.pending) = (last.position, last.pending),
            None => return failure.map_or(Ok(()), Err),
        }
        self.held.extend(messages);
        self.failure = failure;
        Ok(())
    }
}

impl<'a> Reader<'a> {
    /// Reads each log from where it is published.
    pub(super) async fn open(
        logs: &'a [SourceLog],
        feed_end: &FeedEnd,
        batch_max: usize,
    ) -> Result<Self, FollowError> {
        let mut readers = Vec::with_capacity(logs.len());
        for (n, log) in logs.iter().enumerate() {
            readers.push(LogReader::open(log, feed_end.published_through(n), batch_max).await?);
        }
        Ok(Self(readers))
    }

    /// The number of messages that are still to come.
    pub(super) fn pending(&self) -> u64 {
        self.0.iter().map(|log| log.pending).sum()
    }

    /// The next messages in order, at least one. Cancel-safe.
    pub(super) async fn next(
        &mut self,
        messages_max: usize,
    ) -> Result<Vec<SourceMessage>, PublishError> {
        loop {
            if self.0.iter().all(|log| log.held.is_empty()) {
                select_all(self.0.iter_mut().map(|log| Box::pin(log.fill()))).await.0?;
                continue;
            }
            // The backlog of another log may contain earlier events.
            if let Some(log) = self.0.iter_mut().find(|log| log.held.is_empty() && log.pending > 0)
            {
                log.fill().await?;
                continue;
            }
            if let Some(first) = self.0.first_mut().filter(|first| first.held.is_empty())
                && first.source.next_event(first.position).await?.is_some()
            {
                let arrival = timeout(ARRIVAL_MAX, first.fill()).await;
                arrival.map_err(|_| PublishError::Missing)??;
                continue;
            }
            return Ok(self.merged(messages_max));
        }
    }

    /// The messages that can be published now: up to where a log has none left. One that had none from the start holds
    /// up nothing.
    fn merged(&mut self, messages_max: usize) -> Vec<SourceMessage> {
        let mut merged: Vec<SourceMessage> = Vec::new();
        while merged.len() < messages_max {
            let has_run_out = |(n, log): (usize, &LogReader<'_>)| {
                log.held.is_empty() && merged.iter().any(|message| message.log == n)
            };
            if self.0.iter().enumerate().any(has_run_out) {
                break;
            }
            let heads = self.0.iter_mut().enumerate();
            let heads = heads.filter_map(|(n, log)| Some((log.held.front()?.stored_at, n, log)));
            let Some((_, n, log)) = heads.min_by_key(|(stored_at, n, _)| (*stored_at, *n)) else {
                break;
            };
            merged.extend(log.held.pop_front().map(|followed| SourceMessage { log: n, followed }));
        }
        merged
    }
}
