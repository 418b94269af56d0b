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
//! # A full bucket
//! It drops its oldest records. That opens what they had closed, after about a million other keys were
//! tried, which the limit per client address makes slow.

mod local;
mod pending;

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use async_trait::async_trait;
use events::{CommandId, Timestamp, UserId};
use futures::future::join_all;
use serde::Serialize;
use serde::de::DeserializeOwned;
use service_kit::ambient;
use service_kit::config;
use service_kit::event_log::{
    Append, EventLog, Outcome, THROTTLE_RECORD_LIFE, THROTTLE_SUBJECT_PREFIX, Top, Write,
};
use service_kit::keys::{SecretKey, random};
use service_kit::metrics::{Metrics, ThrottleMetrics};
use tokio::sync::{Mutex, MutexGuard, Semaphore};
use tokio::time::{Instant, sleep, timeout_at};

use crate::domain::{
    Attempts, Begin, DAY_MS, Exhausted, Policy, Quota, QuotaPolicy, Verdict, Window,
};
use local::LocalQuotas;
use pending::Pending;

use crate::ports::throttle::{
    Admission, Counted, Deed, Place, PlaceKind, Refusal, Throttle, ThrottleError, Ticket, Watched,
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
    pending: Pending,
    quotas: LocalQuotas,
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
            pending: Pending::default(),
            quotas: LocalQuotas::default(),
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

    /// The records of what is watched, the narrowest first.
    fn places(&self, watched: &Watched<'_>) -> Vec<Place> {
        let account = |subject| vec![Place { subject, kind: PlaceKind::Account }];
        match watched {
            Watched::Account(email) => {
                account(self.subject("account", email.canonical().as_bytes()))
            }
            Watched::Caller(user, session) => {
                let ids = [*user.as_uuid().as_bytes(), *session.as_uuid().as_bytes()];
                account(self.subject("caller", ids.as_flattened()))
            }
            Watched::Address(address) => self
                .networks(*address)
                .into_iter()
                .map(|(key, factor)| Place {
                    subject: self.subject("address", &key),
                    kind: factor.map_or(PlaceKind::Network, PlaceKind::Around),
                })
                .collect(),
        }
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

    fn policy(&self, place: &Place) -> Policy {
        let settings = &self.settings;
        let (reservation_ms, memory_ms) = (millis(RESERVATION), millis(THROTTLE_RECORD_LIFE));
        if place.kind == PlaceKind::Account {
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
                free_failures: settings.address_failures_free.saturating_mul(place.kind.factor()),
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
        let (policy, quota, window_s) = if place.kind == PlaceKind::Account {
            ("account", settings.account_failures_free, settings.account_delay_max_s)
        } else {
            let quota = settings.address_failures_free.saturating_mul(place.kind.factor());
            ("address", quota, settings.address_halving_s)
        };
        self.refused(Refusal { policy, quota, window: Duration::from_secs(window_s), retry_after })
    }

    fn refused(&self, refusal: Refusal) -> Refusal {
        if let Some(metrics) = &self.metrics {
            metrics.refused(refusal.policy);
        }
        refusal
    }

    /// The name and the numbers of the limit on what a user does rightly.
    fn quota(&self, deed: Deed) -> (&'static str, QuotaPolicy) {
        let settings = &self.settings;
        let (policy, per_minute_max, per_day_max) = match deed {
            Deed::Write => ("writes", settings.writes_per_minute_max, settings.writes_per_day_max),
            Deed::Refresh => {
                ("refreshes", settings.refreshes_per_minute_max, settings.refreshes_per_day_max)
            }
            Deed::Login => ("logins", settings.logins_per_minute_max, settings.logins_per_day_max),
            Deed::PasswordCheck => (
                "password-checks",
                settings.password_checks_per_minute_max,
                settings.password_checks_per_day_max,
            ),
        };
        (policy, QuotaPolicy { per_minute_max, per_day_max })
    }

    /// Counts what a user does rightly: here, as long as it is seldom, and in the bucket from then on.
    async fn allow_deed(
        &self,
        user: UserId,
        deed: Deed,
        start: Start,
    ) -> Result<Result<(), Refusal>, ThrottleError> {
        let (policy, quota) = self.quota(deed);
        if self.quotas.let_in(user, deed, quota, start.now_ms()) {
            return Ok(Ok(()));
        }
        let subject = self.subject(policy, user.as_uuid().as_bytes());
        let _turn = self.turn(&subject).await;
        let counted = self
            .change(&subject, |record: &mut Quota| match record.count(start.now_ms(), quota) {
                Ok(()) => (Ok(()), Some(DAY_MS)),
                Err(exhausted) => (Err(exhausted), None),
            })
            .await?;
        Ok(counted.map_err(|Exhausted { max, window_ms, retry_after_ms }| {
            self.refused(Refusal {
                policy,
                quota: max,
                window: Duration::from_millis(window_ms),
                retry_after: Duration::from_millis(retry_after_ms),
            })
        }))
    }

    /// Counts one more in a window, or only looks whether it may.
    async fn count_window(
        &self,
        policy: &'static str,
        subject: &str,
        (max, window_s): (u32, u64),
        start: Start,
        counts: bool,
    ) -> Result<Result<(), Refusal>, ThrottleError> {
        let window_ms = window_s.saturating_mul(1_000);
        let _turn = self.turn(subject).await;
        let counted = self
            .change(subject, |record: &mut Window| {
                match record.count(start.now_ms(), max, window_ms) {
                    Ok(()) => (Ok(()), counts.then_some(window_ms)),
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

    /// Empties a record.
    async fn forget<R>(&self, subject: &str) -> Result<(), ThrottleError>
    where
        R: Default + Serialize + DeserializeOwned,
    {
        let _turn = self.turn(subject).await;
        self.change(subject, |record: &mut R| {
            *record = R::default();
            ((), Some(1))
        })
        .await
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
                        Begin::Go => {
                            let keeps = !matches!(place.kind, PlaceKind::Around(_));
                            (Begin::Go, keeps.then(|| record.life_ms(now_ms, &policy)))
                        }
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
        if matches!(place.kind, PlaceKind::Around(_)) && verdict != Verdict::Wrong {
            return Ok(());
        }
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
            let Top { last, guard } = self.log.top(subject).await.map_err(failed)?;
            let mut record = match &last {
                None => R::default(),
                Some(stored) => serde_json::from_slice(&stored.payload)
                    .map_err(|error| failed(format!("{subject} cannot be read: {error}")))?,
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
        for account in self.places(&Watched::Account(account)) {
            self.forget::<Attempts>(&account.subject).await?;
        }
        self.quotas.forget(user, Deed::PasswordCheck);
        let (policy, _) = self.quota(Deed::PasswordCheck);
        self.forget::<Quota>(&self.subject(policy, user.as_uuid().as_bytes())).await
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
                let subject = self.subject("mails", user.as_uuid().as_bytes());
                let limit = (settings.mails_max, settings.mails_window_s);
                return self.count_window("mails", &subject, limit, start, true).await;
            }
            Counted::RegistrationFrom(address) => ("registrations", address),
            Counted::ResetRequestFrom(address) => ("resets", address),
            Counted::PasswordSetFrom(address) => ("password-sets", address),
        };
        let windows = self.networks(from).into_iter().map(|(key, factor)| {
            let max = settings.requests_max.saturating_mul(factor.unwrap_or(1));
            (self.subject(policy, &key), (max, settings.requests_window_s))
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
