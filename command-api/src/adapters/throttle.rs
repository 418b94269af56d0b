//! The throttle in a bucket of JetStream: one small record per key, changed by compare-and-set on the stream's leader,
//! so that a limit holds for all processes together.
//!
//! It is built by hand because no rate limiter of the ecosystem has reservations before a comparison, one count for
//! several processes on JetStream, and records that survive a full bucket.
//!
//! # Keys
//! A key is a keyed hash of an address. The bucket contains neither e-mail nor network addresses.
//!
//! # If the store does not answer
//! Nothing is accepted. An attempt at a password is refused as `unavailable`: it needs the event log on the same servers
//! anyway, so this adds no second outage. A mail is refused as well: sending without counting would let anyone who can
//! disturb NATS flood a mailbox. A record that cannot be read counts as no answer.
//!
//! # Contention
//! Attempts of one process on one key take turns at a lock, so that they do not invalidate each other's guard. Between
//! processes the guard decides, and the loser reads again after a short random pause.
//!
//! [`pending`] limits how many attempts wait, also per network, so that a flood is refused at once and the owner of the
//! account does not wait behind it.
//!
//! # Permitted actions
//! Writes, refreshes and logins of one user are limited too, and would each cost a write to the bucket. So every process
//! accepts a tenth of the limit from memory ([`local`]), and only a busier user is counted in the bucket: with n
//! processes a user gets at most 1 + n/10 times the limit.
//!
//! # Full buckets
//! The bucket of attempts drops its oldest records. That forgets a few wrong passwords, but never an account that was
//! delayed or locked by them: a copy of such a record is in a bucket that refuses when it is full ([`Buckets::closed`]),
//! and is read if the first bucket has none. What anybody can have counted without a password (mails, requests) is in a
//! third bucket, so that it displaces nothing else.

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
    Admission, AttemptKey, RateKey, Refusal, SlotKind, Throttle, ThrottleError, Ticket, UserAction,
};
use bucket::Bucket;
use local::LocalQuotas;
use pending::Pending;

/// Locks shared by all keys: enough that two busy keys seldom share one, and a fixed bound.
const LOCKS: usize = 1_024;
/// Attempts of this process that may wait for others; more are refused at once.
const WAITING_MAX: usize = 512;
/// The names of the limits in a refusal.
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
/// How long a record without content stays.
const LEAVING: Duration = Duration::from_secs(1);
/// `Retry-After` of an attempt that waited in vain.
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

/// The throttle in JetStream.
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
    /// On verified buckets, with a key for this purpose only.
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

    /// Counts its refusals in the metrics.
    pub fn watched(self, metrics: &Metrics) -> Self {
        Self { metrics: Some(metrics.throttle(&POLICIES)), ..self }
    }

    /// The key of a record, the same in every bucket.
    fn record(&self, kind: &str, key: &[u8]) -> String {
        let mac = self.key.mac_hex(&[kind.as_bytes(), key]);
        format!("{kind}.{mac}")
    }

    /// The networks that an address is counted for: the IPv4 address, or the /64 of an IPv6 address and the wider networks
    /// that contain it, each with its multiple of the allowance. A client with a large network is still one client.
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
            // The length distinguishes it from a smaller network that begins with the same zeros.
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

    /// Waits for the turn at a record. The guard would hold without it, too.
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
        keys: &[AttemptKey<'_>],
        now: Timestamp,
    ) -> Result<Admission, ThrottleError> {
        let id = u64::from_be_bytes(random().map_err(failed)?);
        let mut ticket = Ticket { id, slots: Vec::new() };
        if !self.settings.enabled {
            return Ok(Admission::Go(ticket));
        }
        let start = Start::new(now);
        let slots: Vec<_> = keys.iter().flat_map(|key| self.slots(key)).collect();
        let network = slots.iter().find(|slot| slot.kind == SlotKind::Network);
        let network = network.map(|slot| slot.subject.clone());
        for slot in slots {
            let begun = if slot.kind == SlotKind::Account {
                match self.pending.enter(&slot.subject, network.as_deref()) {
                    Some(_entered) => self.begin_at(id, &slot, start).await?,
                    None => Begin::Wait,
                }
            } else {
                self.begin_at(id, &slot, start).await?
            };
            let retry_after = match begun {
                Begin::Go => {
                    ticket.slots.push(slot);
                    continue;
                }
                Begin::Wait => AFTER_WAITING,
                Begin::Refused { retry_after_ms } => Duration::from_millis(retry_after_ms),
            };
            self.finish(ticket, Verdict::Undecided, now).await?;
            return Ok(Admission::Refused(self.refusal(&slot, retry_after)));
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
            ticket.slots.iter().map(|slot| self.finish_at(ticket.id, slot, verdict, start));
        // All of them run to their end, even if one fails.
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
        for slot in self.slots(&AttemptKey::Account(account)) {
            let policy = self.policy(&slot);
            let _turn = self.turn(&slot.subject).await;
            let forget = |record: &mut Attempts| {
                *record = Attempts::default();
                ((), Some(millis(LEAVING)))
            };
            self.change_attempts(&slot, &policy, forget).await?;
        }
        self.quotas.forget(user, UserAction::PasswordCheck);
        let (policy, _) = self.quota(UserAction::PasswordCheck);
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
        key: RateKey,
        now: Timestamp,
    ) -> Result<Result<(), Refusal>, ThrottleError> {
        if !self.settings.enabled {
            return Ok(Ok(()));
        }
        let settings = &self.settings;
        let start = Start::new(now);
        let (policy, from) = match key {
            RateKey::By(user, action) => return self.allow_action(user, action, start).await,
            RateKey::MailAskedBy(user) => {
                let subject = self.record("mails", user.as_uuid().as_bytes());
                let limit = (settings.mails_max, settings.mails_window_s);
                return self.count_window("mails", &subject, limit, start, true).await;
            }
            RateKey::RegistrationFrom(address) => ("registrations", address),
            RateKey::ResetRequestFrom(address) => ("resets", address),
            RateKey::PasswordSetFrom(address) => ("password-sets", address),
        };
        let windows = self.networks(from).into_iter().map(|(key, factor)| {
            let max = settings.requests_max.saturating_mul(factor.unwrap_or(1));
            (self.record(policy, &key), (max, settings.requests_window_s))
        });
        let windows: Vec<_> = windows.collect();
        // All are checked before any is counted, or a refused client would use up the allowance of its neighbours.
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

/// A given time and the instant it was given at: waiting advances it.
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

/// A random number, both ends included; the lower one if there is no randomness.
fn between(low: u64, high: u64) -> u64 {
    let drawn = random().map(u64::from_be_bytes).unwrap_or(0);
    low + drawn % (high - low + 1)
}

fn failed(error: impl ToString) -> ThrottleError {
    ThrottleError(error.to_string())
}

#[cfg(test)]
mod tests;
