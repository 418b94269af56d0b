//! One subscriber: its connection, its folder, and running it.

use std::fmt::Display;
use std::fs::File;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::flow::Flow;
use super::parked::Store;
use super::wire::{Source, Wire};
use super::{ClientError, Parked, Revisions, Settings, files};
use crate::feed::FeedEvent;

/// How often it is looked whether the operator has something replayed.
const LOOK_FOR_REPLAY: Duration = Duration::from_secs(10);

/// A subscriber of the feed.
#[derive(Debug)]
pub struct Subscriber {
    settings: Settings,
    wire: Wire,
    store: Store,
    revisions: Option<Revisions>,
    /// Holds the state folder for as long as this lives; given up by the system when the process dies.
    _lock: File,
}

impl Subscriber {
    /// Opens the state folder and connects. From then on a lost connection is made again for ever.
    ///
    /// # Errors
    /// [`ClientError`] says what is wrong; most of it is for whoever set the subscriber up.
    pub async fn connect(settings: Settings) -> Result<Self, ClientError> {
        let state = &settings.state;
        files::make_folder(state).map_err(ClientError::state(state))?;
        let path = state.join("lock");
        let lock = files::private().write(true).create(true).open(&path);
        let lock = lock.map_err(ClientError::state(&path))?;
        if lock.try_lock().is_err() {
            return Err(ClientError::InUse { path: state.clone() });
        }
        let store = Store::open(state, settings.parked_events_max);
        let store = store.map_err(ClientError::state(state))?;
        let path = state.join("revisions");
        let revisions = settings
            .keep_revisions
            .then(|| Revisions::open(&path).map_err(ClientError::state(&path)))
            .transpose()?;
        let wire = Wire::connect(&settings).await?;
        Ok(Self { settings, wire, store, revisions, _lock: lock })
    }

    /// What is parked, and what shall become of it.
    #[must_use]
    pub fn parked(&self) -> Parked {
        Parked::at(&self.settings.state)
    }

    /// Has events handled until `stop` is cancelled: first the states of all users, if the operator prepared
    /// them, then the events since then. What the operator has replayed comes in between, within seconds.
    ///
    /// An event is done when the handler returns `Ok`. What it returns as an error is written to the log and
    /// tried again for [`Settings::retry_for`]; then the event is parked. When `stop` is cancelled the handler
    /// that runs comes to its end, its event is acknowledged, and nothing is begun any more.
    ///
    /// Whoever drops this instead loses nothing: what was begun comes again after the consumer's `ack_wait`.
    ///
    /// # Errors
    /// [`ClientError`]: nothing is handled any more. What was not acknowledged comes again with the next run.
    pub async fn run<H, F, E>(
        &mut self,
        stop: CancellationToken,
        handler: H,
    ) -> Result<(), ClientError>
    where
        H: Fn(FeedEvent) -> F,
        F: Future<Output = Result<(), E>>,
        E: Display,
    {
        loop {
            for source in [Source::Snapshots, Source::Feed] {
                if stop.is_cancelled() {
                    return Ok(());
                }
                self.follow(source, &stop, &handler).await?;
            }
        }
    }

    /// Takes what one stream has: of the states and what is replayed until there is nothing left, of the feed until
    /// something is replayed.
    async fn follow<H, F, E>(
        &mut self,
        source: Source,
        stop: &CancellationToken,
        handler: &H,
    ) -> Result<(), ClientError>
    where
        H: Fn(FeedEvent) -> F,
        F: Future<Output = Result<(), E>>,
        E: Display,
    {
        let Some(consumer) = self.wire.consumer(source).await? else {
            if source == Source::Snapshots {
                return Ok(());
            }
            let name = self.wire.name().to_owned();
            return Err(ClientError::NoConsumer { stream: source.stream(), name });
        };
        if source == Source::Snapshots && consumer.left == 0 {
            return Ok(());
        }
        tracing::info!(stream = source.stream(), waiting = consumer.left, "taking events");
        let pause = CancellationToken::new();
        let mut flow = Flow {
            wire: &self.wire,
            settings: &self.settings,
            stop,
            pause: pause.clone(),
            handler,
            store: &mut self.store,
            revisions: &mut self.revisions,
            source,
            consumer,
        };
        let mut running = Box::pin(flow.run());
        if source == Source::Feed {
            tokio::select! {
                ended = &mut running => return ended,
                () = something_is_replayed(&self.wire) => pause.cancel(),
            }
        }
        running.await
    }
}

/// Waits until there is something in the queue that is this subscriber's own.
async fn something_is_replayed(wire: &Wire) {
    loop {
        sleep(LOOK_FOR_REPLAY).await;
        let found = wire.ask_for_consumer(Source::Snapshots).await;
        if found.is_ok_and(|found| found.is_some_and(|consumer| consumer.left > 0)) {
            return;
        }
    }
}
