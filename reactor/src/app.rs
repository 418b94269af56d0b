//! Builds and runs the reactor: four loops until it is stopped.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use events::{Event, Fact, Position, Snapshot, Timestamp, UserFact, feed, subjects};
use service_kit::config::{self, Settings};
use service_kit::event_log::{
    ConsumerSpec, EventLog, Limits, Outcome, ProvisionError, StreamSpec, Task, erasures,
    feed_stream, mailer_events, mailer_notices, mailer_orders, mails_stream, security_stream,
    sessions_stream, snapshots_stream, throttle_counts_stream, users_stream,
};
use service_kit::health::Readiness;
use service_kit::key_ring::RotatingKey;
use service_kit::keys::{KeyError, LINK_KEY_FILE, MAIL_KEY_FILE};
use service_kit::links::Links;
use service_kit::lookup_keys::LookupKeys;
use service_kit::mail_jobs::MailJobs;
use service_kit::metrics::Metrics;
use service_kit::nats;
use service_kit::sealing::SealingError;
use service_kit::security::SECURITY_STREAM;
use service_kit::telemetry::Telemetry;
use service_kit::trace::{Requester, Scope, TraceContext, Tracer};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::devices::Devices;
use crate::eraser::Eraser;
use crate::gate::Gate;
use crate::letters::Letters;
use crate::mailer::{Mailer, Memory, age};
use crate::orders::{OrderedBy, orders};
use crate::transport::{SetupError, Transport, sender};
use crate::turns::Turns;

/// The service's name.
pub const SERVICE: &str = "reactor";
/// The default file with the eraser's credentials, in the folder of the mailer's.
pub const ERASER_CREDS_FILE: &str = "eraser.creds";
/// The reactor's two NATS users. The one that talks to mail servers cannot delete messages, and the one that deletes
/// them cannot make links or mails.
const MAILER: &str = "mailer";
const ERASER: &str = "eraser";
/// Concurrent messages in the loop of the events, and in the loop of mails that somebody waits for.
const AT_ONCE_MAX: usize = 8;
/// Concurrent messages in the loop of notices: fewer, so that a slow mail server has capacity for the others.
const NOTICES_AT_ONCE_MAX: usize = 4;
/// Concurrent messages in the loop of erasures. Nearly all of the log leads to no erasure and is skipped at once.
const ERASURES_AT_ONCE_MAX: usize = 64;
/// Pause before an event is retried whose mail jobs could not be stored.
const EVENT_PUT_OFF: Duration = Duration::from_secs(2);
/// Pause before an unreadable event is read again.
const UNREADABLE_PUT_OFF: Duration = Duration::from_secs(60);
/// The readiness check fails when a message waits, an erasure takes, or no mail can be handed over for this long.
const WAIT_MAX: Duration = Duration::from_secs(15 * 60);

/// The reactor cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No connection to NATS.
    #[error(transparent)]
    Connect(#[from] nats::ConnectError),
    /// A stream or a consumer is not provisioned as required.
    #[error(transparent)]
    Log(#[from] ProvisionError),
    /// A key is missing.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The cipher rejected a key.
    #[error(transparent)]
    Sealing(#[from] SealingError),
    /// The settings of mail cannot be used.
    #[error(transparent)]
    Setup(#[from] SetupError),
}

/// A reactor that is ready to run.
pub struct App {
    work: Arc<Work>,
}

struct Work {
    mailer: Mailer,
    events: ConsumerSpec,
    orders: ConsumerSpec,
    notices: ConsumerSpec,
    eraser: Arc<Eraser>,
    /// The event that cannot be read, if any.
    unreadable: Mutex<Option<(Position, String)>>,
    tracer: Tracer,
    /// Key files are reloaded until this is dropped.
    _following: DropGuard,
}

impl App {
    /// Connects, and checks streams, consumers, keys and settings. The mail server may become available later.
    ///
    /// # Errors
    /// [`StartError`]: nothing was started.
    pub async fn build(settings: &Settings, watch: &Telemetry) -> Result<Self, StartError> {
        let Telemetry { metrics, tracer } = watch;
        let from = sender(&settings.mail)?;
        let transport = Transport::open(&settings.mail)?;
        let secrets = &settings.secrets.dir;
        let following = CancellationToken::new();
        let key = |file| RotatingKey::follow(&secrets.join(file), &following);
        let links = Links::new(key(LINK_KEY_FILE)?);
        let orders = MailJobs::new(key(MAIL_KEY_FILE)?)?;
        let gate_key = LookupKeys::read_mail_gate(secrets)?;

        let mailing = nats::connect(&settings.nats, MAILER).await?;
        let erasing = nats::connect(&of_eraser(settings), ERASER).await?;
        let open = async |client, spec: &StreamSpec| {
            let log = EventLog::new(client, spec.name(), Limits::of(settings));
            log.verify(spec).await.map(|()| log)
        };
        let (log, mail) = (&settings.log, &settings.mail);
        let users = open(mailing.clone(), &users_stream(log)).await?.watched(metrics);
        let mails = open(mailing.clone(), &mails_stream(log)).await?.watched(metrics);
        mails.watch_room(metrics);
        let gate = Gate::new(
            open(mailing.clone(), &throttle_counts_stream(log)).await?,
            gate_key,
            settings,
        );
        let snapshots = open(erasing.clone(), &snapshots_stream(log, &settings.feed)).await?;
        snapshots.watch_room(metrics);
        let sessions = sessions_stream(log, &settings.sessions);
        let logins = open(mailing.clone(), &sessions).await?.reporting(metrics);
        let sessions = open(erasing.clone(), &sessions).await?;
        let eraser = Eraser {
            users: open(erasing.clone(), &users_stream(log)).await?.reporting(metrics),
            sessions: sessions.watched(metrics),
            feed: open(erasing.clone(), &feed_stream(log, &settings.feed)).await?,
            snapshots,
            security: open(erasing.clone(), &security_stream(log, &settings.security)).await?,
            causes: erasures(),
            second_look: Duration::from_secs(settings.erasure.second_look_s),
            metrics: metrics.erasures([
                subjects::USERS_STREAM,
                subjects::SESSIONS_STREAM,
                feed::FEED_STREAM,
                feed::SNAPSHOTS_STREAM,
                SECURITY_STREAM,
            ]),
            turns: Turns::new(settings.erasure.busy_percent),
            waiting: Mutex::default(),
        };
        eraser.users.verify_consumer(&eraser.causes).await?;
        let eraser = Arc::new(eraser);
        watch_erasures(metrics, &eraser);
        let work = Work {
            mailer: Mailer {
                users,
                mails,
                orders,
                links,
                letters: Letters::new(from, &settings.link_base()),
                gate,
                devices: Devices::new(logins),
                transport,
                settings: mail.clone(),
                memory: Mutex::new(Memory::default()),
                metrics: metrics.mails(),
            },
            events: mailer_events(),
            orders: mailer_orders(),
            notices: mailer_notices(),
            eraser,
            unreadable: Mutex::new(None),
            tracer: tracer.clone(),
            _following: following.drop_guard(),
        };
        work.mailer.users.verify_consumer(&work.events).await?;
        work.mailer.mails.verify_consumer(&work.orders).await?;
        work.mailer.mails.verify_consumer(&work.notices).await?;
        Ok(Self { work: Arc::new(work) })
    }

    /// Adds the readiness checks: the consumers answer, no message waits too long without an attempt, every event can
    /// be read, the mail server accepts mails, and no erasure takes too long.
    ///
    /// Mails that a recipient's server defers are not counted, because one full mailbox would make the reactor unready.
    /// Neither are parked mails, which `roster parked list` shows.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        let work = Arc::clone(&self.work);
        Readiness::default().with("reactor", move || {
            let work = Arc::clone(&work);
            async move { work.check().await }
        })
    }

    /// Runs until `stop`, then completes the work in progress.
    pub async fn run(self, stop: CancellationToken) {
        let Work { mailer, events, orders, notices, eraser, .. } = &*self.work;
        tracing::info!("the reactor follows events and mail jobs");
        tokio::join!(
            // Events become mail jobs.
            mailer.users.work_off(events, AT_ONCE_MAX, &stop, |task| self.work.order(task)),
            // Mail jobs become mails.
            mailer.mails.work_off(orders, AT_ONCE_MAX, &stop, |task| mailer.carry_out(task)),
            // Notices have a queue of their own.
            mailer
                .mails
                .work_off(notices, NOTICES_AT_ONCE_MAX, &stop, |task| { mailer.carry_out(task) }),
            // Deletions become erasures.
            eraser.users.work_off(&eraser.causes, ERASURES_AT_ONCE_MAX, &stop, |task| {
                eraser.carry_out(task)
            }),
        );
        mailer.users.disconnect().await;
        eraser.users.disconnect().await;
    }
}

impl Work {
    /// Stores the mail jobs of one event.
    async fn order(&self, task: Task) {
        let position = task.position;
        let acknowledged = match Event::from_json(task.payload()) {
            Ok(event) => {
                self.readable(position);
                match self.place_within(&event, position).await {
                    Ok(()) => task.ack().await,
                    Err(error) => {
                        tracing::warn!(error, %position, "cannot store the mail jobs of an event; retrying");
                        task.nak(EVENT_PUT_OFF).await
                    }
                }
            }
            Err(error) if self.too_old(task.stored_at) => {
                tracing::error!(%error, %position, "an event could not be read in time for its mails; no mail");
                self.readable(position);
                task.ack().await
            }
            Err(error) => {
                tracing::error!(%error, %position, "an event cannot be read; retrying");
                *lock(&self.unreadable) = Some((position, error.to_string()));
                task.nak(UNREADABLE_PUT_OFF).await
            }
        };
        if let Err(error) = acknowledged {
            tracing::warn!(%error, %position, "cannot acknowledge an event; it may be delivered again");
        }
    }

    /// A mail about something that long ago is of no use.
    fn too_old(&self, time: Timestamp) -> bool {
        older_than(time, Duration::from_secs(self.mailer.settings.give_up_s))
    }

    fn readable(&self, position: Position) {
        let mut unreadable = lock(&self.unreadable);
        if unreadable.as_ref().is_some_and(|(stuck, _)| *stuck == position) {
            *unreadable = None;
        }
    }

    /// Stores the mail jobs of an event, as a part of the trace of its request.
    async fn place_within(&self, event: &Event, position: Position) -> Result<(), String> {
        let cause = event.traceparent.as_deref().and_then(TraceContext::parse);
        let kind = event.fact.wire_type();
        let recorded = self.tracer.event(subjects::USERS_STREAM, kind, position, cause);
        let placed = match event.correlation_id.clone() {
            Some(request_id) => {
                let context = recorded.context().cloned();
                let scope = Scope { request_id, context, requester: Requester::default() };
                scope.cover(self.place(event, position)).await
            }
            None => self.place(event, position).await,
        };
        if placed.is_err() {
            recorded.failed();
        }
        placed
    }

    async fn place(&self, event: &Event, position: Position) -> Result<(), String> {
        if self.too_old(event.time) {
            tracing::warn!(event = %event.id, "an event is too old to lead to mails; no mail");
            return Ok(());
        }
        let credential = subjects::user_credential(event.user_id());
        let credential = self.mailer.users.last(&credential).await;
        let has_credential = credential.map_err(|error| error.to_string())?.is_some();
        let previous_email = if matches!(event.fact, UserFact::EmailChanged { .. }) {
            self.previous_email(event, position).await?
        } else {
            None
        };
        for order in orders(event, &OrderedBy { has_credential, previous_email }) {
            match self.mailer.orders.place(&self.mailer.mails, &order).await {
                // A conflict means that it is stored already.
                Outcome::Stored(_) | Outcome::Conflict | Outcome::Duplicate => {}
                failed @ (Outcome::Unknown
                | Outcome::Full
                | Outcome::Unavailable
                | Outcome::Refused(..)) => return Err(format!("{failed:?}")),
            }
        }
        Ok(())
    }

    /// The user's address before an event. It is only in the event before that one, until the user is erased.
    async fn previous_email(
        &self,
        event: &Event,
        position: Position,
    ) -> Result<Option<String>, String> {
        let subject = subjects::user_events(event.user_id());
        let previous = self.mailer.users.previous(&subject, position).await;
        let Some(previous) = previous.map_err(|error| error.to_string())? else {
            tracing::warn!(event = %event.id, "the event before a change of address is gone: no mail");
            return Ok(None);
        };
        let previous = Event::from_json(&previous.payload).map_err(|error| error.to_string())?;
        Ok(match previous.after {
            Snapshot::Present(user) => Some(user.email),
            Snapshot::Deleted(_) => None,
        })
    }

    async fn check(&self) -> Result<(), String> {
        let unreadable = lock(&self.unreadable).clone();
        if let Some((position, error)) = unreadable {
            let found = self.mailer.users.at(position).await.map_err(|e| e.to_string())?;
            if found.is_some() {
                return Err(format!("the event at position {position} cannot be read: {error}"));
            }
            // The operator has dropped it, and it will not be delivered again.
            self.readable(position);
        }
        if let Some((since, why)) = self.mailer.trouble()
            && older_than(since, WAIT_MAX)
        {
            return Err(format!("no mail could be handed over since {since}: {why}"));
        }
        for (log, consumer, filter) in [
            (&self.mailer.users, &self.events, subjects::USER_EVENTS_FILTER),
            (&self.mailer.mails, &self.orders, subjects::MAIL_ORDERS_FILTER),
            (&self.mailer.mails, &self.notices, subjects::MAIL_NOTICES_FILTER),
        ] {
            let backlog = log.verify_consumer(consumer).await.map_err(|e| e.to_string())?;
            if backlog.pending == 0 {
                continue;
            }
            let next = log.next(filter, backlog.delivered).await.map_err(|e| e.to_string())?;
            if next.is_some_and(|next| older_than(next.stored_at, WAIT_MAX)) {
                let (count, stream) = (backlog.pending, consumer.stream());
                return Err(format!("{count} messages of {stream} wait for too long"));
            }
        }
        match self.eraser.oldest().await? {
            Some((position, since)) if older_than(since, WAIT_MAX) => {
                let why = self.eraser.reason(position);
                let why = why.unwrap_or_else(|| "not tried yet".to_owned());
                Err(format!(
                    "the erasure for position {position} has been pending since {since}: {why}"
                ))
            }
            _ => Ok(()),
        }
    }
}

/// Connection settings of the eraser: the same servers with its own credentials.
fn of_eraser(settings: &Settings) -> config::Nats {
    let credentials_file = eraser_credentials(settings);
    config::Nats { credentials_file, ..settings.nats.clone() }
}

/// The eraser's credentials file; empty if the mailer connects without credentials, too.
#[must_use]
pub fn eraser_credentials(settings: &Settings) -> PathBuf {
    let (set, of_mailer) = (&settings.erasure.credentials_file, &settings.nats.credentials_file);
    if !set.as_os_str().is_empty() || of_mailer.as_os_str().is_empty() {
        return set.clone();
    }
    of_mailer.with_file_name(ERASER_CREDS_FILE)
}

/// Reports the age of the oldest erasure, at every scrape of the metrics.
fn watch_erasures(metrics: &Metrics, eraser: &Arc<Eraser>) {
    let eraser = Arc::clone(eraser);
    metrics.sample(move || {
        let eraser = Arc::clone(&eraser);
        async move {
            // A log that does not answer is reported where it is read, not here.
            if let Ok(oldest) = eraser.oldest().await {
                let waited = oldest.map(|(_, since)| age(since));
                eraser.metrics.oldest(waited.unwrap_or_default());
            }
        }
    });
}

fn older_than(time: Timestamp, limit: Duration) -> bool {
    age(time) >= limit
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
