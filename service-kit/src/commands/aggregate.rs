//! Commands that change one aggregate each.

use std::fmt::Display;
use std::marker::PhantomData;
use std::sync::Arc;

use async_trait::async_trait;
use events::{Envelope, Evolve, Fact, Position, ServiceNames};
use tokio_util::task::TaskTracker;

use super::{
    Appended, Change, CommandLog, CommandRunner, Done, Failure, IdempotencyKey, IdempotencyKeys,
    KeyRecord, Loaded, LogError, Recorded, Request,
};
use crate::event_log::{EventLog, Stored};

/// A type of aggregate: what may happen to one, decided without a clock, random numbers or waiting. What a fact
/// does to the state is [`Evolve`].
pub trait Aggregate: Send + Sync + 'static {
    /// What can happen.
    type Fact: Evolve<Id: Display, After: Send + Sync> + Send + Sync;
    /// A request that may be rejected.
    type Command: Send + Sync + 'static;
    /// Why it is rejected.
    type Rejection: Send + 'static;

    /// Decides. No fact means that nothing has to change.
    ///
    /// # Errors
    /// The rule that rejects it.
    fn decide(
        state: Option<&After<Self>>,
        command: &Self::Command,
    ) -> Result<Vec<Self::Fact>, Self::Rejection>;
}

/// The state of an aggregate.
pub type After<A> = <<A as Aggregate>::Fact as Fact>::After;
/// The id of one.
pub type Id<A> = <<A as Aggregate>::Fact as Evolve>::Id;

/// Why a command was not carried out, or that its outcome is unknown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused<R> {
    /// A rule rejects it.
    Rejected(R),
    /// Anything else.
    Failed(Failure),
}

impl<R> From<Failure> for Refused<R> {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl<R> From<LogError> for Refused<R> {
    fn from(error: LogError) -> Self {
        Self::Failed(error.into())
    }
}

/// The commands on one type of aggregate. Cheap to clone.
pub struct Commands<A> {
    log: AggregateLog,
    keys: IdempotencyKeys,
    runner: CommandRunner,
    of: PhantomData<fn() -> A>,
}

impl<A> Clone for Commands<A> {
    fn clone(&self) -> Self {
        let (log, keys, runner) = (self.log.clone(), self.keys.clone(), self.runner.clone());
        Self { log, keys, runner, of: PhantomData }
    }
}

impl<A: Aggregate> Commands<A> {
    /// On a verified log. `tasks` are the running commands: shutdown waits for them.
    #[must_use]
    pub fn new(
        log: EventLog,
        names: ServiceNames,
        keys: IdempotencyKeys,
        tasks: TaskTracker,
    ) -> Self {
        let log = AggregateLog { log, names: Arc::new(names) };
        Self { log, keys, runner: CommandRunner::new(tasks), of: PhantomData }
    }

    /// What makes idempotency keys out of headers.
    #[must_use]
    pub const fn keys(&self) -> &IdempotencyKeys {
        &self.keys
    }

    /// The state of an aggregate, as the leader of the log knows it.
    ///
    /// # Errors
    /// [`LogError`]: decide nothing.
    pub async fn load(&self, id: Id<A>) -> Result<Loaded<Option<After<A>>>, LogError> {
        let read = |stored: &Stored| Ok(Some(envelope::<A::Fact>(stored)?.after));
        self.log.log.loaded_or(&self.log.names.events(id), None, read).await
    }

    /// Carries a command out: decides on the state in the log, stores what was decided, and decides again when the
    /// aggregate has changed meanwhile. It runs to its end even if nobody waits for it any more.
    ///
    /// # Errors
    /// [`Refused`]: nothing was done, except for [`Failure::OutcomeUnknown`].
    pub async fn execute(
        &self,
        id: Id<A>,
        command: A::Command,
        request: Request,
    ) -> Result<Done<After<A>>, Refused<A::Rejection>> {
        let commands = self.clone();
        self.runner.detached(async move { commands.carry_out(id, &command, &request).await }).await
    }

    async fn carry_out(
        &self,
        id: Id<A>,
        command: &A::Command,
        request: &Request,
    ) -> Result<Done<After<A>>, Refused<A::Rejection>> {
        let origin = &request.origin();
        let executed = self.runner.run(&self.log, request, || async move {
            let loaded = self.load(id).await?;
            let facts = A::decide(loaded.value.as_ref(), command).map_err(Refused::Rejected)?;
            if let Some(before) = &loaded.value {
                request.precondition.check(A::Fact::revision(before)).map_err(Failure::from)?;
            }
            Ok::<_, Refused<_>>(Change::<A::Fact>::decided(id, loaded, facts, origin)?)
        });
        let erased = || Failure::Internal("the event behind a key is gone".to_owned());
        executed.await?.done_or(|| erased().into())
    }
}

/// The log of a service: each aggregate has one subject.
#[derive(Clone)]
struct AggregateLog {
    log: EventLog,
    names: Arc<ServiceNames>,
}

#[async_trait]
impl<F: Evolve<Id: Display, After: Send + Sync> + Send + Sync> CommandLog<F> for AggregateLog {
    async fn recorded(&self, key: &IdempotencyKey) -> Result<Option<Recorded>, Failure> {
        self.log.recorded(&self.names.idempotency_record(&key.key), key).await
    }

    async fn event_at(&self, position: Position) -> Result<Option<Envelope<F>>, LogError> {
        self.log.loaded_at(position, envelope).await
    }

    async fn append(&self, change: &Change<F>) -> Appended {
        let record = |key: &IdempotencyKey, record: KeyRecord| {
            KeyRecord::write(self.names.idempotency_record(&key.key), &record)
        };
        match change.to_append(self.names.events(change.id), Vec::new(), record) {
            Ok(append) => self.log.append(&append).await.into(),
            Err(why) => Appended::Refused(why),
        }
    }
}

fn envelope<F: Fact>(stored: &Stored) -> Result<Envelope<F>, String> {
    Envelope::from_json(&stored.payload).map_err(|error| error.to_string())
}
