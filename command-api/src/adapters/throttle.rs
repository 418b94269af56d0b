//! The throttle on a bucket of JetStream: one small record a key, changed by compare-and-set on the
//! stream's leader, so that a limit holds over all processes.
//!
//! # Keys
//! A key is a keyed hash of an address. Neither e-mail nor network addresses stand in the bucket.
//!
//! # When the store does not answer
//! Nothing is let through. An attempt at a password is refused as `unavailable`: it needs the event log
//! on the same servers anyway, so a second way to fail is not a second outage. A mail is refused as well:
//! sending without counting would let anyone who can disturb the bus flood a mailbox. A record that
//! cannot be read counts as no answer.
//!
//! # Contention
//! Attempts of one process on one key take turns at a lock, so that they do not spoil each other's
//! guard; between processes the guard decides, and whoever lost reads again after a short random pause.
//!
//! # A full bucket
//! It drops its oldest records. That opens what they had closed, after about a million other keys were
//! tried, which the limit per client address makes slow.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use async_trait::async_trait;
use events::{CommandId, Timestamp};
use futures::future::join_all;
use serde::Serialize;
use serde::de::DeserializeOwned;
use service_kit::ambient;
use service_kit::config;
use service_kit::event_log::{
    Append, EventLog, Guard, Outcome, THROTTLE_RECORD_LIFE, THROTTLE_SUBJECT_PREFIX, Write,
};
use service_kit::keys::{SecretKey, random};
use service_kit::metrics::{Metrics, ThrottleMetrics};
use tokio::sync::{Mutex, MutexGuard, Semaphore};
use tokio::time::{Instant, sleep, timeout_at};

use crate::domain::{Attempts, Begin, Policy, Verdict, Window};
use crate::ports::throttle::{
    Admission, Counted, Place, Refusal, Throttle, ThrottleError, Ticket, Watched,
};

/// Locks that keys share: enough that two busy keys seldom meet, and a bound whatever is tried.
const LOCKS: usize = 1_024;
/// Changes of one record that may be lost to other processes.
const CHANGES_MAX: usize = 64;
/// Longest pause after a lost change, in milliseconds; the shortest is none.
const CHANGE_PAUSE_MAX_MS: u64 = 16;
/// Shortest pause of an attempt that waits for others, in milliseconds.
const WAIT_PAUSE_MIN_MS: u64 = 20;
/// Longest such pause, in milliseconds.
const WAIT_PAUSE_MAX_MS: u64 = 50;
/// How long an attempt waits for its turn at a record before it is refused.
const TURN_WAIT_MAX: Duration = Duration::from_secs(5);
/// Attempts of this process that may wait for others; further ones are refused at once.
const WAITING_MAX: usize = 512;
/// The names of the limits, as a refusal tells them.
const POLICIES: [&str; 6] =
    ["account", "address", "mails", "registrations", "resets", "password-sets"];
/// How long a place is kept for an attempt that does not tell.
const RESERVATION: Duration = Duration::from_secs(10);
/// When an attempt that waited in vain may come again.
const AFTER_WAITING: Duration = Duration::from_secs(1);

/// The real throttle.
pub struct NatsThrottle {
    log: EventLog,
    key: SecretKey,
    settings: config::Throttle,
    locks: Vec<Mutex<()>>,
    waiting: Semaphore,
    metrics: Option<ThrottleMetrics>,
}

impl NatsThrottle {
    /// Uses the verified bucket, with a key derived from the application's.
    pub fn new(log: EventLog, application_key: &SecretKey, settings: &config::Throttle) -> Self {
        Self {
            log,
            key: application_key.derive("throttle v1"),
            settings: settings.clone(),
            locks: std::iter::repeat_with(Mutex::default).take(LOCKS).collect(),
            waiting: Semaphore::new(WAITING_MAX),
            metrics: None,
        }
    }

    /// The same, with its refusals counted.
    pub fn watched(self, metrics: &Metrics) -> Self {
        Self { metrics: Some(metrics.throttle(&POLICIES)), ..self }
    }

    fn subject(&self, kind: &str, key: &[u8]) -> String {
        let mac = self.key.mac_hex(&[kind.as_bytes(), key]);
        format!("{THROTTLE_SUBJECT_PREFIX}{kind}.{mac}")
    }

    fn place(&self, watched: &Watched<'_>) -> Place {
        match watched {
            Watched::Account(email) => {
                let subject = self.subject("account", email.canonical().as_bytes());
                Place { subject, of_account: true }
            }
            Watched::Caller(user) => {
                let subject = self.subject("caller", user.as_uuid().as_bytes());
                Place { subject, of_account: true }
            }
            Watched::Address(address) => {
                let subject = self.subject("address", &network(*address));
                Place { subject, of_account: false }
            }
        }
    }

    fn policy(&self, place: &Place) -> Policy {
        let settings = &self.settings;
        let (reservation_ms, memory_ms) = (millis(RESERVATION), millis(THROTTLE_RECORD_LIFE));
        if place.of_account {
            Policy {
                free_failures: settings.account_failures_free,
                delay_max_ms: settings.account_delay_max_s.saturating_mul(1_000),
                failures_max: Some(settings.account_failures_max),
                halving_ms: None,
                right_forgets: true,
                reservation_ms,
                memory_ms,
            }
        } else {
            Policy {
                free_failures: settings.address_failures_free,
                delay_max_ms: settings.address_delay_max_s.saturating_mul(1_000),
                failures_max: None,
                halving_ms: Some(settings.address_halving_s.saturating_mul(1_000)),
                right_forgets: false,
                reservation_ms,
                memory_ms,
            }
        }
    }

    fn refusal(&self, place: &Place, retry_after: Duration) -> Refusal {
        let settings = &self.settings;
        let (policy, quota, window_s) = if place.of_account {
            ("account", settings.account_failures_free, settings.account_delay_max_s)
        } else {
            ("address", settings.address_failures_free, settings.address_halving_s)
        };
        self.refused(Refusal { policy, quota, window: Duration::from_secs(window_s), retry_after })
    }

    fn refused(&self, refusal: Refusal) -> Refusal {
        if let Some(metrics) = &self.metrics {
            metrics.refused(refusal.policy);
        }
        refusal
    }

    /// A place at one record; waits while only attempts under way are in the way.
    async fn begin_at(&self, id: u64, place: &Place, start: Start) -> Result<Begin, ThrottleError> {
        let policy = self.policy(place);
        let deadline = start.at + Duration::from_millis(self.settings.wait_max_ms);
        let mut waiting = None;
        loop {
            let turn = timeout_at(start.at + TURN_WAIT_MAX, self.turn(&place.subject)).await;
            let Ok(turn) = turn else { return Ok(Begin::Wait) };
            let begin = self
                .change(&place.subject, |record: &mut Attempts| {
                    let now_ms = start.now_ms();
                    match record.begin(id, now_ms, &policy) {
                        Begin::Go => (Begin::Go, Some(record.life_ms(now_ms, &policy))),
                        other @ (Begin::Wait | Begin::Refused { .. }) => (other, None),
                    }
                })
                .await?;
            drop(turn);
            if begin != Begin::Wait {
                return Ok(begin);
            }
            if waiting.is_none() {
                waiting = self.waiting.try_acquire().ok();
            }
            let pause = Duration::from_millis(between(WAIT_PAUSE_MIN_MS, WAIT_PAUSE_MAX_MS));
            if waiting.is_none() || Instant::now() + pause >= deadline {
                return Ok(Begin::Wait);
            }
            sleep(pause).await;
        }
    }

    async fn finish_at(
        &self,
        id: u64,
        place: &Place,
        verdict: Verdict,
        start: Start,
    ) -> Result<(), ThrottleError> {
        let policy = self.policy(place);
        let _turn = self.turn(&place.subject).await;
        self.change(&place.subject, |record: &mut Attempts| {
            let now_ms = start.now_ms();
            record.finish(id, verdict, now_ms, &policy);
            ((), Some(record.life_ms(now_ms, &policy)))
        })
        .await
    }

    /// Reads a record, lets it be changed, and writes it if it has a new life in milliseconds; again when
    /// another process was faster. Whoever calls has the turn at the record.
    async fn change<R, T>(
        &self,
        subject: &str,
        decide: impl Fn(&mut R) -> (T, Option<u64>),
    ) -> Result<T, ThrottleError>
    where
        R: Default + Serialize + DeserializeOwned,
    {
        for _ in 0..CHANGES_MAX {
            let stored = self.log.last(subject).await.map_err(failed)?;
            let (mut record, guard) = match &stored {
                None => (R::default(), Guard::absent()),
                Some(stored) => {
                    let record = serde_json::from_slice(&stored.payload)
                        .map_err(|error| failed(format!("{subject} cannot be read: {error}")))?;
                    (record, stored.guard())
                }
            };
            let (told, life_ms) = decide(&mut record);
            let Some(life_ms) = life_ms else { return Ok(told) };
            let payload = serde_json::to_vec(&record).map_err(failed)?;
            let life = Duration::from_secs(life_ms.div_ceil(1_000));
            let write = Write::new(subject.to_owned(), guard, payload).expiring_after(life);
            let command = CommandId::from_uuid(ambient::new_uuid());
            match self.log.append(&Append::new(command, write)).await {
                Outcome::Stored(_) => return Ok(told),
                Outcome::Conflict | Outcome::Duplicate => {
                    sleep(Duration::from_millis(between(0, CHANGE_PAUSE_MAX_MS))).await;
                }
                Outcome::Unknown | Outcome::Unavailable => {
                    return Err(failed("no answer to a write"));
                }
                outcome @ (Outcome::Full | Outcome::Refused(..)) => {
                    return Err(failed(format!("a write was refused: {outcome:?}")));
                }
            }
        }
        Err(failed("others changed a record too often"))
    }

    /// The turn at a record. Without it the guard would still hold.
    async fn turn(&self, subject: &str) -> Option<MutexGuard<'_, ()>> {
        // A subject ends with a keyed hash in hex: its bytes are as good as random.
        let tail = subject.bytes().rev().take(8);
        let number = tail.fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        match self.locks.get(number % LOCKS) {
            Some(lock) => Some(lock.lock().await),
            None => None,
        }
    }
}

#[async_trait]
impl Throttle for NatsThrottle {
    async fn begin(
        &self,
        watched: &[Watched<'_>],
        now: Timestamp,
    ) -> Result<Admission, ThrottleError> {
        let id = u64::from_be_bytes(random().map_err(failed)?);
        let mut ticket = Ticket { id, places: Vec::new() };
        if !self.settings.enabled {
            return Ok(Admission::Go(ticket));
        }
        let start = Start::new(now);
        for watched in watched {
            let place = self.place(watched);
            let retry_after = match self.begin_at(id, &place, start).await? {
                Begin::Go => {
                    ticket.places.push(place);
                    continue;
                }
                Begin::Wait => AFTER_WAITING,
                Begin::Refused { retry_after_ms } => Duration::from_millis(retry_after_ms),
            };
            self.finish(ticket, Verdict::Undecided, now).await?;
            return Ok(Admission::Refused(self.refusal(&place, retry_after)));
        }
        Ok(Admission::Go(ticket))
    }

    async fn finish(
        &self,
        ticket: Ticket,
        verdict: Verdict,
        now: Timestamp,
    ) -> Result<(), ThrottleError> {
        let start = Start::new(now);
        let finished =
            ticket.places.iter().map(|place| self.finish_at(ticket.id, place, verdict, start));
        // All of them run to their end, also when one fails.
        join_all(finished).await.into_iter().collect()
    }

    async fn clear(&self, account: &events::EmailAddress) -> Result<(), ThrottleError> {
        if !self.settings.enabled {
            return Ok(());
        }
        let place = self.place(&Watched::Account(account));
        let _turn = self.turn(&place.subject).await;
        self.change(&place.subject, |record: &mut Attempts| {
            *record = Attempts::default();
            ((), Some(1))
        })
        .await
    }

    async fn allow(
        &self,
        counted: Counted,
        now: Timestamp,
    ) -> Result<Result<(), Refusal>, ThrottleError> {
        if !self.settings.enabled {
            return Ok(Ok(()));
        }
        let settings = &self.settings;
        let mails = (settings.mails_max, settings.mails_window_s);
        let requests = (settings.requests_max, settings.requests_window_s);
        let (policy, key, (max, window_s)) = match counted {
            Counted::MailAskedBy(user) => ("mails", user.as_uuid().as_bytes().to_vec(), mails),
            Counted::RegistrationFrom(address) => ("registrations", network(address), requests),
            Counted::ResetRequestFrom(address) => ("resets", network(address), requests),
            Counted::PasswordSetFrom(address) => ("password-sets", network(address), requests),
        };
        let start = Start::new(now);
        let window_ms = window_s.saturating_mul(1_000);
        let subject = self.subject(policy, &key);
        let _turn = self.turn(&subject).await;
        let counted = self
            .change(&subject, |record: &mut Window| {
                match record.count(start.now_ms(), max, window_ms) {
                    Ok(()) => (Ok(()), Some(window_ms)),
                    Err(retry_after_ms) => (Err(retry_after_ms), None),
                }
            })
            .await?;
        Ok(counted.map_err(|retry_after_ms| {
            self.refused(Refusal {
                policy,
                quota: max,
                window: Duration::from_secs(window_s),
                retry_after: Duration::from_millis(retry_after_ms),
            })
        }))
    }
}

/// A time that was given, and when: waiting moves it on.
#[derive(Clone, Copy)]
struct Start {
    now_ms: u64,
    at: Instant,
}

impl Start {
    fn new(now: Timestamp) -> Self {
        let now_ms = u64::try_from(now.as_datetime().timestamp_millis()).unwrap_or(0);
        Self { now_ms, at: Instant::now() }
    }

    fn now_ms(self) -> u64 {
        self.now_ms.saturating_add(millis(self.at.elapsed()))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A random number, both ends included; the lower one when there is no randomness to be had.
fn between(low: u64, high: u64) -> u64 {
    let drawn = random().map(u64::from_be_bytes).unwrap_or(0);
    low + drawn % (high - low + 1)
}

/// What counts as one client: an IPv4 address, or the /64 of an IPv6 address.
fn network(address: IpAddr) -> Vec<u8> {
    match address.to_canonical() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => {
            let prefix = address.to_bits() & !u128::from(u64::MAX);
            Ipv6Addr::from_bits(prefix).octets().to_vec()
        }
    }
}

fn failed(error: impl ToString) -> ThrottleError {
    ThrottleError(error.to_string())
}

#[cfg(test)]
mod tests;
