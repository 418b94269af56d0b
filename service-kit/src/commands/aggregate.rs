//! Commands that change one aggregate each.

use std::fmt::Display;
use std::marker::PhantomData;
use std::sync::Arc;

use events::{
    CommandId, Envelope, Evolve, Fact, Origin, Position, Recorded, Revision, ServiceNames, record,
};
use tokio_util::task::TaskTracker;

use super::{
    ATTEMPTS_MAX, Appended, Failure, IdempotencyKeys, InFlight, KeyRecord, Loaded, LogError,
    Request, run_detached, settled,
};
use crate::ambient;
use crate::event_log::{Append, EventLog, Guard, Write};

/// A kind of aggregate: what may happen to one, decided without a clock, random numbers or waiting. What a fact
/// does to the state is [`Evolve`].
pub trait Aggregate: Send + Sync + 'static {
    /// What can happen.
    type Fact: Evolve<Id: Display, After: Send + Sync> + Send + Sync;
    /// A wish that may be refused.
    type Command: Send + Sync + 'static;
    /// Why it is refused.
    type Rejection: Send + 'static;

    /// Decides. No fact means that everything is already as wished.
    ///
    /// # Errors
    /// The rule that refuses it.
    fn decide(
        state: Option<&After<Self>>,
        command: &Self::Command,
    ) -> Result<Vec<Self::Fact>, Self::Rejection>;
}

/// The state of an aggregate.
pub type After<A> = <<A as Aggregate>::Fact as Fact>::After;
/// What names one.
pub type Id<A> = <<A as Aggregate>::Fact as Evolve>::Id;

/// A command that was carried out, or found to be already.
#[derive(Debug, Clone, PartialEq)]
pub struct Done<S> {
    /// The state after it.
    pub after: S,
    /// Revision after it.
    pub revision: Revision,
    /// Position of its last event.
    pub position: Position,
}

/// Why a command was not carried out, or why nobody can say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused<R> {
    /// A rule refuses it.
    Rejected(R),
    /// Something else.
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

/// The commands on one kind of aggregate. Cheap to clone.
pub struct Commands<A> {
    log: EventLog,
    names: Arc<ServiceNames>,
    keys: IdempotencyKeys,
    in_flight: InFlight,
    tasks: TaskTracker,
    of: PhantomData<fn() -> A>,
}

impl<A> Clone for Commands<A> {
    fn clone(&self) -> Self {
        Self {
            log: self.log.clone(),
            names: Arc::clone(&self.names),
            keys: self.keys.clone(),
            in_flight: self.in_flight.clone(),
            tasks: self.tasks.clone(),
            of: PhantomData,
        }
    }
}

impl<A: Aggregate> Commands<A> {
    /// On a verified log. `tasks` are the commands under way: whoever stops waits for them.
    #[must_use]
    pub fn new(
        log: EventLog,
        names: ServiceNames,
        keys: IdempotencyKeys,
        tasks: TaskTracker,
    ) -> Self {
        let (names, in_flight) = (Arc::new(names), InFlight::default());
        Self { log, names, keys, in_flight, tasks, of: PhantomData }
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
        let read = |stored: &crate::event_log::Stored| read::<A>(&stored.payload).map(Some);
        let loaded = self.log.loaded_or(&self.names.events(id), None, read).await?;
        let Loaded { value, guard, position } = loaded;
        Ok(Loaded { value: value.map(|event| event.after), guard, position })
    }

    /// Carries a command out: decides on what the log says, stores what was decided, and decides again when the
    /// aggregate has changed meanwhile. It comes to its end whatever becomes of who waits for it.
    ///
    /// # Errors
    /// [`Refused`]: nothing was done, unless it is [`Failure::OutcomeUnknown`].
    pub async fn execute(
        &self,
        id: Id<A>,
        command: A::Command,
        request: Request,
    ) -> Result<Done<After<A>>, Refused<A::Rejection>> {
        let commands = self.clone();
        let work = async move { commands.carry_out(id, &command, &request).await };
        run_detached(&self.tasks, work).await
    }

    async fn carry_out(
        &self,
        id: Id<A>,
        command: &A::Command,
        request: &Request,
    ) -> Result<Done<After<A>>, Refused<A::Rejection>> {
        let _running = self.in_flight.start(request.key.as_ref())?;
        let origin = request.origin();
        for _ in 0..ATTEMPTS_MAX {
            if let Some(done) = self.earlier(request).await? {
                return Ok(done);
            }
            let loaded = self.load(id).await?;
            let facts = A::decide(loaded.value.as_ref(), command).map_err(Refused::Rejected)?;
            if let Some(before) = &loaded.value {
                request.precondition.check(A::Fact::revision(before)).map_err(Failure::from)?;
            }
            let (events, after) = recorded::<A>(id, loaded.value, facts, &origin)?;
            let Some(after) = after else {
                return Err(internal("a command on nothing led to nothing").into());
            };
            let revision = A::Fact::revision(&after);
            if events.is_empty() {
                let position = loaded.position;
                if self.record_unchanged(revision, position, request).await? {
                    return Ok(Done { after, revision, position });
                }
                continue;
            }
            let appended = self.append(id, loaded.guard, &events, revision, request).await?;
            if let Some(position) = settled(appended)? {
                return Ok(Done { after, revision, position });
            }
        }
        Err(Failure::Overloaded.into())
    }

    /// What the key of a request led to before, if it did. The answer is read from the event itself, so it is the
    /// same also when the aggregate has changed since.
    async fn earlier(&self, request: &Request) -> Result<Option<Done<After<A>>>, Failure> {
        let Some(key) = &request.key else { return Ok(None) };
        let subject = self.names.idempotency_record(&key.key);
        let Some(recorded) = self.log.recorded(&subject, key).await? else { return Ok(None) };
        let read = |stored: &crate::event_log::Stored| read::<A>(&stored.payload);
        let event = self.log.loaded_at(recorded.position, read).await?;
        let event = event.ok_or_else(|| internal("the event behind a key is gone"))?;
        let (revision, position) = (recorded.revision, recorded.position);
        Ok(Some(Done { after: event.after, revision, position }))
    }

    /// Keeps the answer of a command that had nothing to do under its key; whether nobody was faster.
    async fn record_unchanged(
        &self,
        revision: Revision,
        position: Position,
        request: &Request,
    ) -> Result<bool, Failure> {
        let Some(key) = &request.key else { return Ok(true) };
        let record = KeyRecord::unchanged(key, revision, position);
        let subject = self.names.idempotency_record(&key.key);
        let write = KeyRecord::write(subject, &record).map_err(internal)?;
        let append = Append::new(CommandId::from_uuid(ambient::new_uuid()), write);
        Ok(settled(self.log.append(&append).await.into())?.is_some())
    }

    async fn append(
        &self,
        id: Id<A>,
        guard: Guard,
        events: &[Envelope<A::Fact>],
        revision: Revision,
        request: &Request,
    ) -> Result<Appended, Failure> {
        let json = |event: &Envelope<A::Fact>| event.to_json().map_err(|e| internal(e.to_string()));
        let Some((first, more)) = events.split_first() else {
            return Err(internal("an append of nothing"));
        };
        let write = Write::new(self.names.events(id), guard, json(first)?);
        let write = write.event(first.id, first.fact.wire_type());
        let mut append = Append::new(first.command_id, write);
        if let Some(key) = &request.key {
            let record = KeyRecord::of(key, revision, events.len() as u64);
            let subject = self.names.idempotency_record(&key.key);
            append = append.with(KeyRecord::write(subject, &record).map_err(internal)?);
        }
        for event in more {
            append = append.then(json(event)?, event.id, event.fact.wire_type());
        }
        Ok(self.log.append(&append).await.into())
    }
}

fn read<A: Aggregate>(payload: &[u8]) -> Result<Envelope<A::Fact>, String> {
    Envelope::from_json(payload).map_err(|error| error.to_string())
}

fn recorded<A: Aggregate>(
    id: Id<A>,
    before: Option<After<A>>,
    facts: Vec<A::Fact>,
    origin: &Origin,
) -> Result<Recorded<A::Fact>, Failure> {
    record(id, before, facts, origin, ambient::new_uuid).map_err(|e| internal(e.to_string()))
}

fn internal(why: impl Into<String>) -> Failure {
    Failure::Internal(why.into())
}
