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
//! Not all of them: [`pending`] bounds how many, and how many of one network, so that a flood is refused at once and
//! the owner of the account does not stand behind it.
//!
//! # What users do rightly
//! Writes, refreshes and logins of one user are limited too, and would cost a write to the bucket each. So every
//! process lets a tenth of the limit through from memory ([`local`]), and only whoever is busier is counted in the
//! bucket: with n processes a user gets at most 1 + n/10 times the limit.
//!
//! # Full buckets
//! The bucket of attempts drops its oldest records. That forgets a few wrong passwords, never an account that they
//! have delayed or closed: a copy of such a record is in a bucket that refuses when it is full ([`Buckets::closed`]),
//! and is read when there is none in the first. What anybody can count without a password (mails, requests) is in a
//! third one, so that it pushes out nothing else.

mod attempts;
mod bucket;
mod local;
mod pending;
mod quotas;

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use async_trait::async_trait;
use events::{Timestamp, UserId};
use futures::future::join_all;
use service_kit::config;
use service_kit::event_log::EventLog;
use service_kit::keys::{SecretKey, random};
use service_kit::metrics::{Metrics, ThrottleMetrics};
use tokio::sync::{Mutex, MutexGuard, Semaphore};
use tokio::time::Instant;

use crate::domain::{Attempts, Begin, Quota, Verdict};
use crate::ports::throttle::{
    Admission, Counted, Deed, PlaceKind, Refusal, Throttle, ThrottleError, Ticket, Watched,
};
use bucket::Bucket;
use local::LocalQuotas;
use pending::Pending;

/// Locks that keys share: enough that two busy keys seldom meet, and a bound whatever is tried.
const LOCKS: usize = 1_024;
/// Attempts of this process that may wait for others; further ones are refused at once.
const WAITING_MAX: usize = 512;
/// The names of the limits, as a refusal tells them.
const POLICIES: [&str; 10] = [
    "account",
    "address",
    "mails",
    "registrations",
    "resets",
    "password-sets",
    "writes",
    "refreshes",
    "logins",
    "password-checks",
];
/// How long a record stays that says nothing any more.
const LEAVING: Duration = Duration::from_secs(1);
/// When an attempt that waited in vain may come again.
const AFTER_WAITING: Duration = Duration::from_secs(1);

/// Where the records are.
#[derive(Clone)]
pub struct Buckets {
    /// Attempts; drops its oldest.
    pub attempts: EventLog,
    /// Copies of those that close an account; refuses when it is full.
    pub closed: EventLog,
    /// What is counted without a verdict; drops its oldest.
    pub counts: EventLog,
}

/// The real throttle.
pub struct NatsThrottle {
    buckets: Buckets,
    key: SecretKey,
    settings: config::Throttle,
    locks: Vec<Mutex<()>>,
    waiting: Semaphore,
    pending: Pending,
    quotas: LocalQuotas,
    metrics: Option<ThrottleMetrics>,
}

impl NatsThrottle {
    /// Uses verified buckets, with a key for this purpose alone.
    pub fn new(buckets: Buckets, key: SecretKey, settings: &config::Throttle) -> Self {
        Self {
            buckets,
            key,
            settings: settings.clone(),
            locks: std::iter::repeat_with(Mutex::default).take(LOCKS).collect(),
            waiting: Semaphore::new(WAITING_MAX),
            pending: Pending::default(),
            quotas: LocalQuotas::default(),
            metrics: None,
        }
    }

    /// The same, with its refusals counted.
    pub fn watched(self, metrics: &Metrics) -> Self {
        Self { metrics: Some(metrics.throttle(&POLICIES)), ..self }
    }

    /// The key of a record, the same in every bucket.
    fn record(&self, kind: &str, key: &[u8]) -> String {
        let mac = self.key.mac_hex(&[kind.as_bytes(), key]);
        format!("{kind}.{mac}")
    }

    /// What an address is counted for: an IPv4 address, or the /64 of an IPv6 address; and what that is in, with how
    /// many times as much it may do. Whoever has a larger network is no other client with each part of it.
    fn networks(&self, address: IpAddr) -> Vec<(Vec<u8>, Option<u32>)> {
        let address = match address.to_canonical() {
            IpAddr::V4(address) => return vec![(address.octets().to_vec(), None)],
            IpAddr::V6(address) => address,
        };
        let prefix = |bits: u32| {
            let kept = u128::MAX << (u128::BITS - bits);
            Ipv6Addr::from_bits(address.to_bits() & kept).octets().to_vec()
        };
        let mut networks = vec![(prefix(64), None)];
        for (bits, factor) in [
            (56_u8, self.settings.ipv6_56_factor),
            (48, self.settings.ipv6_48_factor),
            (32, self.settings.ipv6_32_factor),
        ] {
            // Its length tells it from a smaller network that begins with the same zeros.
            let mut key = prefix(bits.into());
            key.push(bits);
            networks.push((key, Some(factor)));
        }
        networks
    }

    fn refused(&self, refusal: Refusal) -> Refusal {
        if let Some(metrics) = &self.metrics {
            metrics.refused(refusal.policy);
        }
        refusal
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
        let places: Vec<_> = watched.iter().flat_map(|watched| self.places(watched)).collect();
        let network = places.iter().find(|place| place.kind == PlaceKind::Network);
        let network = network.map(|place| place.subject.clone());
        for place in places {
            let begun = if place.kind == PlaceKind::Account {
                match self.pending.enter(&place.subject, network.as_deref()) {
                    Some(_entered) => self.begin_at(id, &place, start).await?,
                    None => Begin::Wait,
                }
            } else {
                self.begin_at(id, &place, start).await?
            };
            let retry_after = match begun {
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

    async fn clear(
        &self,
        account: &events::EmailAddress,
        user: UserId,
    ) -> Result<(), ThrottleError> {
        if !self.settings.enabled {
            return Ok(());
        }
        for place in self.places(&Watched::Account(account)) {
            let policy = self.policy(&place);
            let _turn = self.turn(&place.subject).await;
            let forget = |record: &mut Attempts| {
                *record = Attempts::default();
                ((), Some(millis(LEAVING)))
            };
            self.change_attempts(&place, &policy, forget).await?;
        }
        self.quotas.forget(user, Deed::PasswordCheck);
        let (policy, _) = self.quota(Deed::PasswordCheck);
        let record = self.record(policy, user.as_uuid().as_bytes());
        let _turn = self.turn(&record).await;
        let forget = |record: &mut Quota| {
            *record = Quota::default();
            ((), Some(millis(LEAVING)))
        };
        self.change(Bucket::counts(&self.buckets), None, &record, forget).await
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
        let start = Start::new(now);
        let (policy, from) = match counted {
            Counted::By(user, deed) => return self.allow_deed(user, deed, start).await,
            Counted::MailAskedBy(user) => {
                let subject = self.record("mails", user.as_uuid().as_bytes());
                let limit = (settings.mails_max, settings.mails_window_s);
                return self.count_window("mails", &subject, limit, start, true).await;
            }
            Counted::RegistrationFrom(address) => ("registrations", address),
            Counted::ResetRequestFrom(address) => ("resets", address),
            Counted::PasswordSetFrom(address) => ("password-sets", address),
        };
        let windows = self.networks(from).into_iter().map(|(key, factor)| {
            let max = settings.requests_max.saturating_mul(factor.unwrap_or(1));
            (self.record(policy, &key), (max, settings.requests_window_s))
        });
        let windows: Vec<_> = windows.collect();
        // Looked at before any is counted, or one client that is refused would use up what its neighbours have.
        let looks = [false, true];
        for counts in looks.iter().skip(usize::from(windows.len() == 1)) {
            for (subject, limit) in &windows {
                let counted = self.count_window(policy, subject, *limit, start, *counts).await?;
                if counted.is_err() {
                    return Ok(counted);
                }
            }
        }
        Ok(Ok(()))
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

fn failed(error: impl ToString) -> ThrottleError {
    ThrottleError(error.to_string())
}

#[cfg(test)]
mod tests;
