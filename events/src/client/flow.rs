//! The loop: asks for messages, has them handled, answers the server, and looks after what is parked.
//!
//! One task owns everything that changes, so nothing here is locked and each step sees the last one whole.
//! What takes time (handlers, acknowledgements) runs as [`Job`]s beside it and comes back as [`Done`].

use std::collections::VecDeque;
use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

use async_nats::Subject;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::attempts::{Outcome, attempt, persist};
use super::keeper::Keeper;
use super::lanes::{Handled, Lanes};
use super::parked::{Message, ParkedEvent, Request, Store};
use super::revisions::Mark;
use super::wire::{Arrival, Consumer, Delivery, Key, Source, Wire};
use super::{ClientError, Revisions, Settings};
use crate::UserId;
use crate::feed::{FeedEvent, Happened};

/// How often the connection is looked at.
const TICK: Duration = Duration::from_millis(250);
/// Every so many ticks it is looked whether somebody asked for something about what is parked.
const TICKS_BETWEEN_REQUESTS: u64 = 4;
/// How long a request for messages waits for some at the server, which shows four times meanwhile that it
/// is alive.
const PULL_EXPIRES: Duration = Duration::from_secs(20);
/// The same while there is an end to be noticed.
const SNAPSHOT_PULL_EXPIRES: Duration = Duration::from_secs(2);
/// How long the server may be silent beyond what it promised.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// Pause after a request that could not be served.
const REFUSED_PAUSE: Duration = Duration::from_millis(500);
/// How often an acknowledgement is sent before the message is left to come again.
const ACKS_MAX: usize = 3;
/// How long to wait for what is on its way when the subscriber stops.
const DRAIN_MAX: Duration = Duration::from_secs(2);

/// What a flow works with.
pub(super) struct Flow<'a, H> {
    pub(super) wire: &'a Wire,
    pub(super) settings: &'a Settings,
    pub(super) stop: &'a CancellationToken,
    /// Ends this flow when what has begun is done with; another one comes after it.
    pub(super) pause: CancellationToken,
    pub(super) handler: &'a H,
    pub(super) store: &'a mut Store,
    pub(super) revisions: &'a mut Option<Revisions>,
    pub(super) source: Source,
    pub(super) consumer: Consumer,
}

/// Something that takes time.
enum Job {
    Handle { delivery: Delivery, event: FeedEvent },
    Retry { parked: ParkedEvent, event: FeedEvent },
    Ack { reply: Subject },
}

/// What came of it.
enum Done {
    Handle {
        delivery: Delivery,
        event: FeedEvent,
        outcome: Outcome,
    },
    Retry {
        parked: ParkedEvent,
        event: FeedEvent,
        outcome: Result<(), String>,
    },
    /// Confirmed, or given up: then the message comes again and is found to be handled.
    Ack,
}

/// The request for messages that is open, if one is.
struct Pull {
    wanted: usize,
    deadline: Instant,
    not_before: Instant,
}

impl Pull {
    fn none() -> Self {
        let now = Instant::now();
        Self { wanted: 0, deadline: now, not_before: now }
    }

    fn over(&mut self, pause: Duration) {
        self.wanted = 0;
        self.not_before = Instant::now() + pause;
    }
}

/// What changes while a flow runs.
struct Loop<'f, 'a, H> {
    flow: &'f mut Flow<'a, H>,
    keeper: Keeper,
    lanes: Lanes,
    handled: Handled,
    todo: VecDeque<Job>,
    /// Messages to be given back when nothing more can arrive.
    returned: Vec<Subject>,
    /// A request for messages is open at the server.
    asks: bool,
    /// Nothing seems to be left, which the server is asked about.
    seems_empty: bool,
    /// The server may have forgotten acknowledgements.
    to_be_reminded: bool,
    stopping: bool,
}

impl<H, F, E> Flow<'_, H>
where
    H: Fn(FeedEvent) -> F,
    F: Future<Output = Result<(), E>>,
    E: Display,
{
    /// Runs until the subscriber stops; for snapshots also until there are none left.
    pub(super) async fn run(&mut self) -> Result<(), ClientError> {
        let (inbox, mut arrivals) = self.wire.inbox().await?;
        let keeper = Keeper::new(self.wire, self.consumer.ack_wait);
        let wire = self.wire;
        let mut state = Loop {
            flow: self,
            keeper,
            lanes: Lanes::default(),
            handled: Handled::default(),
            todo: VecDeque::new(),
            returned: Vec::new(),
            asks: false,
            seems_empty: false,
            to_be_reminded: false,
            stopping: false,
        };
        let outcome = state.turn(&inbox, &mut arrivals).await;
        state.give_all_back(&mut arrivals).await;
        wire.flush().await;
        outcome
    }
}

impl<H, F, E> Loop<'_, '_, H>
where
    H: Fn(FeedEvent) -> F,
    F: Future<Output = Result<(), E>>,
    E: Display,
{
    async fn turn(
        &mut self,
        inbox: &Subject,
        arrivals: &mut async_nats::Subscriber,
    ) -> Result<(), ClientError> {
        let (wire, settings) = (self.flow.wire, self.flow.settings);
        let (stop, handler) = (self.flow.stop, self.flow.handler);
        let pause = self.flow.pause.clone();
        let mut working = FuturesUnordered::new();
        let mut pull = Pull::none();
        let mut connections = wire.connections();
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut tick = 0_u64;
        loop {
            self.asks = pull.wanted > 0;
            for job in self.todo.drain(..) {
                working.push(work(wire, settings, stop, handler, job));
            }
            if self.stopping && working.is_empty() {
                return Ok(());
            }
            if !self.stopping {
                let idle = working.is_empty() && self.keeper.len() == 0 && pull.wanted == 0;
                if idle && std::mem::take(&mut self.seems_empty) && self.is_at_its_end().await {
                    return Ok(());
                }
                self.ask(&mut pull, inbox).await?;
            }
            tokio::select! {
                Some(done) = working.next(), if !working.is_empty() => self.finish(done)?,
                arrival = arrivals.next() => {
                    let message = arrival.ok_or(ClientError::Closed)?;
                    self.arrive(Wire::read(message), &mut pull).await?;
                }
                _ = ticks.tick() => {
                    if wire.connections() != connections {
                        connections = wire.connections();
                        pull.over(Duration::ZERO);
                        self.to_be_reminded = true;
                    }
                    if self.to_be_reminded && wire.is_connected() {
                        self.remind().await?;
                    }
                    if pull.wanted > 0 && Instant::now() > pull.deadline {
                        tracing::warn!("the server is silent, asking it again");
                        pull.over(Duration::ZERO);
                    }
                    if tick.is_multiple_of(TICKS_BETWEEN_REQUESTS) && !self.stopping {
                        self.heed_requests()?;
                    }
                    tick += 1;
                }
                () = stop.cancelled(), if !self.stopping => self.begin_nothing_more(),
                () = pause.cancelled(), if !self.stopping => self.begin_nothing_more(),
            }
        }
    }

    fn begin_nothing_more(&mut self) {
        self.stopping = true;
        for delivery in self.lanes.take_waiting() {
            self.put_back(delivery.key);
        }
    }

    /// Asks for as many messages as can be worked on.
    async fn ask(&self, pull: &mut Pull, inbox: &Subject) -> Result<(), ClientError> {
        let flow = &self.flow;
        let at_once = flow.consumer.ack_pending_max.unwrap_or(usize::MAX);
        let room = at_once.min(flow.settings.at_once_max).saturating_sub(self.keeper.len());
        if pull.wanted > 0
            || room == 0
            || Instant::now() < pull.not_before
            || !flow.wire.is_connected()
        {
            return Ok(());
        }
        let expires = match flow.source {
            Source::Snapshots => SNAPSHOT_PULL_EXPIRES,
            Source::Feed => PULL_EXPIRES,
        };
        flow.wire.pull(flow.source, inbox, room, expires).await?;
        pull.wanted = room;
        pull.deadline = Instant::now() + expires / 2 + SILENCE_MAX;
        Ok(())
    }

    /// Whether there is nothing left that this flow is for.
    async fn is_at_its_end(&self) -> bool {
        match self.flow.source {
            Source::Feed => false,
            // No answer is none: the next look is after the next request for messages.
            Source::Snapshots => matches!(
                self.flow.wire.ask_for_consumer(Source::Snapshots).await,
                Ok(None | Some(Consumer { left: 0, .. }))
            ),
        }
    }

    async fn arrive(&mut self, arrival: Arrival, pull: &mut Pull) -> Result<(), ClientError> {
        match arrival {
            Arrival::Message(delivery) => {
                pull.wanted = pull.wanted.saturating_sub(1);
                if delivery.pending == 0 && self.flow.source == Source::Snapshots {
                    // Nothing more is there to fill the rest of the request.
                    pull.wanted = 0;
                    self.seems_empty = true;
                }
                pull.deadline = Instant::now() + PULL_EXPIRES / 2 + SILENCE_MAX;
                self.take(delivery)
            }
            Arrival::Alive => {
                pull.deadline = Instant::now() + PULL_EXPIRES / 2 + SILENCE_MAX;
                Ok(())
            }
            Arrival::Over => {
                pull.over(Duration::ZERO);
                self.seems_empty = true;
                Ok(())
            }
            Arrival::Refused(why) => {
                tracing::warn!(why, "a request for messages was refused");
                pull.over(REFUSED_PAUSE);
                self.seems_empty = true;
                self.is_there_still().await
            }
        }
    }

    /// A server that was killed knows only what it had written down of a consumer, which is behind what it had
    /// confirmed by a moment (tried). It waits for acknowledgements that it had until their time is over; so
    /// they are sent once more.
    async fn remind(&mut self) -> Result<(), ClientError> {
        let Flow { wire, source, .. } = &*self.flow;
        // No answer: a server that has just started is asked again with the next tick.
        let Ok(found) = wire.ask_for_consumer(*source).await else { return Ok(()) };
        self.to_be_reminded = false;
        if let Some(consumer) = found.filter(|consumer| consumer.unacknowledged > 0) {
            for reply in self.handled.behind(consumer.floor) {
                wire.ack_again(reply).await?;
            }
        }
        Ok(())
    }

    /// Whether the operator has taken the consumer away.
    async fn is_there_still(&self) -> Result<(), ClientError> {
        let Flow { wire, source, stop, .. } = &*self.flow;
        let found = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            found = wire.consumer(*source) => found,
        };
        match found {
            Ok(None) if *source == Source::Feed => {
                let name = wire.name().to_owned();
                Err(ClientError::NoConsumer { stream: source.stream(), name })
            }
            // A server that starts, or none at all: it is asked again with the next request.
            _ => Ok(()),
        }
    }

    /// A message came, perhaps again.
    fn take(&mut self, delivery: Delivery) -> Result<(), ClientError> {
        if self.keeper.renew(delivery.key, &delivery.reply) {
            return Ok(());
        }
        if self.handled.has(delivery.key) {
            self.todo.push_back(Job::Ack { reply: delivery.reply });
            return Ok(());
        }
        if self.stopping {
            self.returned.push(delivery.reply);
            return Ok(());
        }
        self.keeper.hold(delivery.key, delivery.reply.clone());
        let user = delivery.user;
        self.lanes.wait(delivery);
        self.start_waiting(user)
    }

    /// Begins what waits for a user, as far as it can be begun.
    fn start_waiting(&mut self, user: UserId) -> Result<(), ClientError> {
        while let Some(delivery) = self.lanes.next(user) {
            self.start(delivery)?;
        }
        Ok(())
    }

    fn start(&mut self, delivery: Delivery) -> Result<(), ClientError> {
        let user = delivery.user;
        // Asked for itself, as the loop may come to the end of another event first.
        if self.stopping || self.flow.stop.is_cancelled() {
            self.put_back(delivery.key);
            return Ok(());
        }
        if delivery.is_foreign() {
            tracing::warn!(
                subject = %delivery.subject, sequence = delivery.key.sequence,
                "a message that Roster did not write is passed over"
            );
            self.settle(delivery.key);
            return Ok(());
        }
        if self.flow.store.holds(user) {
            if !delivery.is_deletion() {
                return self.park(&delivery, "waits behind an earlier event of the same user");
            }
            // What waited is erased where it came from, and there is nobody left it could be about.
            self.on_disk(|store| store.clear(user))?;
        }
        match FeedEvent::from_json(&delivery.payload) {
            Err(error) => self.park(&delivery, &format!("it cannot be read: {error}")),
            Ok(event) if self.is_news(&event) => {
                self.lanes.begin(user);
                self.todo.push_back(Job::Handle { delivery, event });
                Ok(())
            }
            Ok(_) => {
                self.settle(delivery.key);
                Ok(())
            }
        }
    }

    fn finish(&mut self, done: Done) -> Result<(), ClientError> {
        match done {
            Done::Ack => Ok(()),
            Done::Handle { delivery, event, outcome } => {
                let user = delivery.user;
                self.lanes.end(user);
                match outcome {
                    Outcome::Handled => {
                        self.remember(&event, user)?;
                        self.settle(delivery.key);
                    }
                    Outcome::Failed(reason) => self.park(&delivery, &reason)?,
                    Outcome::PutOff => self.put_back(delivery.key),
                }
                self.start_waiting(user)
            }
            Done::Retry { parked, event, outcome } => {
                let user = parked.user;
                self.lanes.end(user);
                match outcome {
                    Ok(()) => {
                        self.remember(&event, user)?;
                        self.on_disk(|store| store.remove(user, parked.number))?;
                        if !self.stopping && !self.lanes.deletion_waits(user) {
                            self.retry(user)?;
                        }
                    }
                    Err(reason) => {
                        tracing::error!(%user, number = parked.number, "a parked event failed again");
                        self.on_disk(|store| store.blame(&parked, &reason))?;
                    }
                }
                self.start_waiting(user)
            }
        }
    }

    /// Begins the first of a user's parked events that has not been handled.
    fn retry(&mut self, user: UserId) -> Result<(), ClientError> {
        while let Some(number) = self.flow.store.next(user, 0) {
            let parked = self.on_disk(|store| store.read(user, number))?;
            match FeedEvent::from_json(&parked.payload) {
                Err(error) => {
                    let reason = format!("it cannot be read: {error}");
                    return self.on_disk(|store| store.blame(&parked, &reason));
                }
                Ok(event) if self.is_news(&event) => {
                    self.lanes.begin(user);
                    self.todo.push_back(Job::Retry { parked, event });
                    return Ok(());
                }
                Ok(_) => self.on_disk(|store| store.remove(user, number))?,
            }
        }
        Ok(())
    }

    /// Does what somebody asked for about parked events.
    fn heed_requests(&mut self) -> Result<(), ClientError> {
        for (user, request) in self.on_disk(|store| store.requests())? {
            if self.lanes.is_busy(user) {
                continue;
            }
            tracing::info!(%user, ?request, "asked for parked events");
            if request == Request::Drop {
                self.on_disk(|store| store.clear(user))?;
            }
            // Before anything that must not be done twice.
            self.on_disk(|store| store.answered(user))?;
            if request == Request::Skip
                && let Some(number) = self.flow.store.next(user, 0)
            {
                self.on_disk(|store| store.remove(user, number))?;
            }
            self.retry(user)?;
        }
        Ok(())
    }

    fn is_news(&self, event: &FeedEvent) -> bool {
        self.flow.revisions.as_ref().is_none_or(|revisions| revisions.is_news(event))
    }

    /// Writes down that an event was handled.
    fn remember(&mut self, event: &FeedEvent, user: UserId) -> Result<(), ClientError> {
        let Some(revisions) = self.flow.revisions else { return Ok(()) };
        let mut outcome = revisions.put(Mark::of(event), Some(user));
        if outcome.is_ok() && matches!(event.happened, Happened::Deleted(_)) {
            outcome = revisions.forget_sessions(user);
        }
        outcome.map_err(ClientError::state(&self.flow.settings.state))
    }

    fn park(&mut self, delivery: &Delivery, reason: &str) -> Result<(), ClientError> {
        let message = Message {
            user: delivery.user,
            subject: &delivery.subject,
            stream: self.flow.source.stream(),
            sequence: delivery.key.sequence,
            payload: &delivery.payload,
        };
        if !self.on_disk(|store| store.park(message, reason))? {
            return Err(ClientError::ParkedFull(self.flow.store.events()));
        }
        // The reason may tell more than a log should hold; it lies beside the event.
        tracing::error!(user = %delivery.user, sequence = delivery.key.sequence, "an event is parked");
        self.settle(delivery.key);
        Ok(())
    }

    /// It is done with, and the server is to know.
    fn settle(&mut self, key: Key) {
        if let Some(reply) = self.keeper.release(key) {
            self.handled.add(key, reply.clone());
            self.todo.push_back(Job::Ack { reply });
        }
    }

    fn put_back(&mut self, key: Key) {
        self.returned.extend(self.keeper.release(key));
    }

    fn on_disk<R>(
        &mut self,
        what: impl FnOnce(&mut Store) -> std::io::Result<R>,
    ) -> Result<R, ClientError> {
        let path: &Path = &self.flow.settings.state;
        what(self.flow.store).map_err(ClientError::state(path))
    }

    /// Lets nothing more arrive, and gives back whatever was not begun, so that it need not wait until its
    /// time is over.
    async fn give_all_back(&mut self, arrivals: &mut async_nats::Subscriber) {
        if arrivals.drain().await.is_ok() {
            // The client looks at what it was told when it has something to send.
            self.flow.wire.flush().await;
            let rest = async {
                while let Some(message) = arrivals.next().await {
                    if let Arrival::Message(delivery) = Wire::read(message) {
                        self.returned.push(delivery.reply);
                    }
                }
            };
            // Without a connection there is nothing on its way.
            let _ = timeout(DRAIN_MAX, rest).await;
        }
        self.returned.extend(self.keeper.release_all());
        if self.asks && !self.returned.is_empty() {
            // To an open request the server would give them again, and nobody listens any more. It ends with
            // its connection; that its inbox is gone is not seen from the account of the consumers (tried).
            self.flow.wire.reconnect(DRAIN_MAX).await;
        }
        for reply in self.returned.drain(..) {
            if self.flow.wire.give_back(&reply).await.is_err() {
                return;
            }
        }
    }
}

async fn work<H, F, E>(
    wire: &Wire,
    settings: &Settings,
    stop: &CancellationToken,
    handler: &H,
    job: Job,
) -> Done
where
    H: Fn(FeedEvent) -> F,
    F: Future<Output = Result<(), E>>,
    E: Display,
{
    match job {
        Job::Handle { delivery, event } => {
            let outcome = persist(settings, stop, handler, &event).await;
            Done::Handle { delivery, event, outcome }
        }
        Job::Retry { parked, event } => {
            let outcome = attempt(settings, handler, &event).await;
            Done::Retry { parked, event, outcome }
        }
        Job::Ack { reply } => {
            for _ in 0..ACKS_MAX {
                if wire.ack(&reply).await || stop.is_cancelled() {
                    break;
                }
                sleep(REFUSED_PAUSE).await;
            }
            Done::Ack
        }
    }
}
