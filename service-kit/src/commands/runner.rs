//! Runs commands: decides, appends, and decides again when somebody else was faster.

use async_trait::async_trait;
use events::{Envelope, Evolve, Position, Revision};
use tokio_util::task::TaskTracker;

use super::{
    Appended, Change, Failure, FurtherWrites, IdempotencyKey, InFlight, LogError, Recorded,
    Request, Running, run_detached, settled,
};

/// Attempts of one command before it gives way: each is lost to another command that succeeded.
pub const ATTEMPTS_MAX: usize = 100;

/// The log of one kind of aggregate, as the runner needs it.
#[async_trait]
pub trait CommandLog<F: Evolve, W = ()>: Send + Sync {
    /// What an idempotency key led to, if it did.
    ///
    /// # Errors
    /// [`Failure::KeyReused`] if it was another request, and those of reading.
    async fn recorded(&self, key: &IdempotencyKey) -> Result<Option<Recorded>, Failure>;

    /// The event at a position; `None` if it was erased.
    ///
    /// # Errors
    /// [`LogError`]: decide nothing.
    async fn event_at(&self, position: Position) -> Result<Option<Envelope<F>>, LogError>;

    /// Stores a change as a whole, or nothing of it.
    async fn append(&self, change: &Change<F, W>) -> Appended;
}

/// A command that was carried out, or that found nothing to change.
#[derive(Debug, Clone, PartialEq)]
pub struct Done<S> {
    /// The state after it.
    pub after: S,
    /// Revision after it.
    pub revision: Revision,
    /// Position of its last event.
    pub position: Position,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Executed<S> {
    /// It was carried out by this request.
    Now(Done<S>),
    /// An earlier request with the same idempotency key carried it out, with this result.
    Earlier(Done<S>),
    /// An earlier request with the same idempotency key carried it out, and its events were erased since.
    Erased,
}

impl<S> Executed<S> {
    /// The result, whichever request it is of.
    ///
    /// # Errors
    /// `erased`, if its events were erased.
    pub fn done_or<E>(self, erased: impl FnOnce() -> E) -> Result<Done<S>, E> {
        match self {
            Self::Now(done) | Self::Earlier(done) => Ok(done),
            Self::Erased => Err(erased()),
        }
    }
}

/// Runs the commands of one process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct CommandRunner {
    in_flight: InFlight,
    tasks: TaskTracker,
}

impl CommandRunner {
    /// `tasks` are the running commands: shutdown waits for them.
    #[must_use]
    pub fn new(tasks: TaskTracker) -> Self {
        Self { in_flight: InFlight::default(), tasks }
    }

    /// Runs a command to its end even if its connection is closed.
    ///
    /// # Errors
    /// Those of the command, and [`Failure::Internal`] if it panicked.
    pub async fn detached<T, E>(
        &self,
        command: impl Future<Output = Result<T, E>> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Failure> + Send + 'static,
    {
        run_detached(&self.tasks, command).await
    }

    /// Marks the key of a request as running in this process.
    ///
    /// # Errors
    /// [`Failure::KeyInFlight`]: it is already.
    pub fn start(&self, key: Option<&IdempotencyKey>) -> Result<Running, Failure> {
        self.in_flight.start(key)
    }

    /// Carries a command out: `decide` loads and decides, the runner stores the change together with the record of the
    /// request's key, and both happen again when something that was read has changed meanwhile.
    ///
    /// # Errors
    /// Those of `decide`, and [`Failure`]: nothing was done, except for [`Failure::OutcomeUnknown`].
    pub async fn run<F, W, E, L, D>(
        &self,
        log: &L,
        request: &Request,
        mut decide: impl FnMut() -> D,
    ) -> Result<Executed<F::After>, E>
    where
        F: Evolve,
        W: FurtherWrites,
        E: From<Failure>,
        L: CommandLog<F, W> + ?Sized,
        D: Future<Output = Result<Change<F, W>, E>>,
    {
        let _running = self.start(request.key.as_ref())?;
        for _ in 0..ATTEMPTS_MAX {
            if let Some(earlier) = earlier(log, request.key.as_ref()).await? {
                return Ok(earlier);
            }
            let mut change = decide().await?;
            change.key.clone_from(&request.key);
            if let Some(done) = store(log, change).await? {
                return Ok(Executed::Now(done));
            }
        }
        Err(Failure::Overloaded.into())
    }
}

/// Stores a change; `None` if something that it was decided on has changed.
async fn store<F, W, L>(log: &L, change: Change<F, W>) -> Result<Option<Done<F::After>>, Failure>
where
    F: Evolve,
    W: FurtherWrites,
    L: CommandLog<F, W> + ?Sized,
{
    if change.after.is_none() {
        return Err(Failure::Internal("a command on nothing led to nothing".to_owned()));
    }
    let mut position = change.before.position;
    if !change.is_empty() {
        let Some(stored) = settled(log.append(&change).await)? else { return Ok(None) };
        if change.has_position() {
            position = stored;
        }
    }
    let revision = change.revision();
    Ok(change.after.map(|after| Done { after, revision, position }))
}

/// What a key led to before, if it did. The result is read from the event itself, so it is the same even if the
/// aggregate has changed since.
///
/// # Errors
/// [`Failure`]: it was another request, or the log does not answer.
pub async fn earlier<F, W, L>(
    log: &L,
    key: Option<&IdempotencyKey>,
) -> Result<Option<Executed<F::After>>, Failure>
where
    F: Evolve,
    L: CommandLog<F, W> + ?Sized,
{
    let Some(key) = key else { return Ok(None) };
    let Some(Recorded { position, revision, state_at }) = log.recorded(key).await? else {
        return Ok(None);
    };
    let event = log.event_at(state_at).await?;
    let done =
        |event: Envelope<F>| Executed::Earlier(Done { after: event.after, revision, position });
    Ok(Some(event.map_or(Executed::Erased, done)))
}

/// Attempts something until no other command is in its way; `None` is an attempt that was lost to one.
///
/// # Errors
/// Those of an attempt, and [`Failure::Overloaded`] after too many.
pub async fn until_settled<T, E: From<Failure>, A>(mut attempt: impl FnMut() -> A) -> Result<T, E>
where
    A: Future<Output = Result<Option<T>, E>>,
{
    for _ in 0..ATTEMPTS_MAX {
        if let Some(settled) = attempt().await? {
            return Ok(settled);
        }
    }
    Err(Failure::Overloaded.into())
}
