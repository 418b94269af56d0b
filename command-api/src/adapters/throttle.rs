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
    Append, EventLog, Guard, Outcome, THROTTLE_CLOSED_SUBJECT_PREFIX,
    THROTTLE_COUNTS_SUBJECT_PREFIX, THROTTLE_RECORD_LIFE, THROTTLE_SUBJECT_PREFIX, Top, Write,
};
use service_kit::keys::{SecretKey, random};
use service_kit::metrics::{Metrics, ThrottleMetrics};
use tokio::sync::{Mutex, MutexGuard, Semaphore};
use tokio::time::{Instant, sleep, timeout_at};

use crate::domain::{
    Attempts, Begin, DAY_MS, Exhausted, Policy, Quota, QuotaPolicy, Verdict, Window,
};
use crate::ports::throttle::{
    Admission, Counted, Deed, Place, PlaceKind, Refusal, Throttle, ThrottleError, Ticket, Watched,
};
use local::LocalQuotas;
use pending::Pending;

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

    /// The records of what is watched, the narrowest first.
    fn places(&self, watched: &Watched<'_>) -> Vec<Place> {
        let account = |subject| vec![Place { subject, kind: PlaceKind::Account }];
        match watched {
            Watched::Account(email) => {
                account(self.record("account", email.canonical().as_bytes()))
            }
            Watched::Caller(user, session) => {
                let ids = [*user.as_uuid().as_bytes(), *session.as_uuid().as_bytes()];
                account(self.record("caller", ids.as_flattened()))
            }
            Watched::Address(address) => self
                .networks(*address)
                .into_iter()
                .map(|(key, factor)| Place {
                    subject: self.record("address", &key),
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
        let subject = self.record(policy, user.as_uuid().as_bytes());
        let counts = Bucket::counts(&self.buckets);
        let _turn = self.turn(&subject).await;
        let counted = self
            .change(counts, None, &subject, |record: &mut Quota| {
                match record.count(start.now_ms(), quota) {
                    Ok(()) => (Ok(()), Some(DAY_MS)),
                    Err(exhausted) => (Err(exhausted), None),
                }
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
        // Versions before had these records among the attempts.
        let bucket = Bucket::counts(&self.buckets);
        let before = Bucket::attempts(&self.buckets);
        let _turn = self.turn(subject).await;
        let counted = self
            .change(bucket, Some(before), subject, |record: &mut Window| {
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

    /// A place at one record; waits while only attempts under way are in the way.
    async fn begin_at(&self, id: u64, place: &Place, start: Start) -> Result<Begin, ThrottleError> {
        let policy = self.policy(place);
        let deadline = start.at + Duration::from_millis(self.settings.wait_max_ms);
        let mut waiting = None;
        loop {
            let turn = timeout_at(start.at + TURN_WAIT_MAX, self.turn(&place.subject)).await;
            let Ok(turn) = turn else { return Ok(Begin::Wait) };
            let begin = self
                .change_attempts(place, &policy, |record| {
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
        self.change_attempts(place, &policy, |record| {
            let now_ms = start.now_ms();
            record.finish(id, verdict, now_ms, &policy);
            ((), Some(record.life_ms(now_ms, &policy)))
        })
        .await
    }

    /// Changes a record of attempts. One that closes an account is copied to where nothing is dropped, and one that
    /// does so no more is taken out there first: whatever comes in between, nothing is open that should not be.
    async fn change_attempts<T>(
        &self,
        place: &Place,
        policy: &Policy,
        decide: impl Fn(&mut Attempts) -> (T, Option<u64>),
    ) -> Result<T, ThrottleError> {
        let attempts = Bucket::attempts(&self.buckets);
        if place.kind != PlaceKind::Account {
            return self.change(attempts, None, &place.subject, decide).await;
        }
        let closed = Bucket::closed(&self.buckets);
        let is_copied = |record: &Attempts| record.closes(policy);
        self.change_copied(attempts, closed, &place.subject, decide, is_copied).await
    }

    /// Reads a record, lets it be changed, and writes it if it has a new life in milliseconds; again when
    /// another process was faster. One that is not in its bucket is looked for in `before`. Whoever calls has the turn
    /// at the record.
    async fn change<R, T>(
        &self,
        bucket: Bucket<'_>,
        before: Option<Bucket<'_>>,
        key: &str,
        decide: impl Fn(&mut R) -> (T, Option<u64>),
    ) -> Result<T, ThrottleError>
    where
        R: Default + Clone + Serialize + DeserializeOwned,
    {
        let fallback = before.unwrap_or(bucket);
        self.change_copied(bucket, fallback, key, decide, |_| false).await
    }

    /// The same, with a copy in another bucket of a record that must not be forgotten. The copy is written first.
    async fn change_copied<R, T>(
        &self,
        bucket: Bucket<'_>,
        other: Bucket<'_>,
        key: &str,
        decide: impl Fn(&mut R) -> (T, Option<u64>),
        is_copied: impl Fn(&R) -> bool,
    ) -> Result<T, ThrottleError>
    where
        R: Default + Clone + Serialize + DeserializeOwned,
    {
        // Whether the copy may be that of a change which was not stored.
        let mut in_doubt = false;
        for _ in 0..CHANGES_MAX {
            let (found, guard) = bucket.read::<R>(key).await?;
            let before = match found {
                Some(record) => record,
                None if other.prefix == bucket.prefix => R::default(),
                None => other.read(key).await?.0.unwrap_or_default(),
            };
            let mut after = before.clone();
            let (told, life_ms) = decide(&mut after);
            let life = life_ms.map(|life_ms| Duration::from_secs(life_ms.div_ceil(1_000)));
            let (record, kept) = match life {
                Some(life) => (&after, life),
                None => (&before, THROTTLE_RECORD_LIFE),
            };
            if in_doubt || (life.is_some() && (is_copied(&before) || is_copied(record))) {
                in_doubt = true;
                let (_, guard) = other.read::<R>(key).await?;
                let nothing = (&R::default(), LEAVING);
                let (copy, kept) = if is_copied(record) { (record, kept) } else { nothing };
                // Whoever was faster there changes the same record: the guard of the first bucket decides, and
                // whoever loses there comes by again.
                other.write(key, copy, guard, kept).await?;
            }
            if life.is_none() || bucket.write(key, record, guard, kept).await? {
                return Ok(told);
            }
            sleep(Duration::from_millis(between(0, CHANGE_PAUSE_MAX_MS))).await;
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

/// One of the buckets, with what its subjects begin with.
#[derive(Clone, Copy)]
struct Bucket<'a> {
    log: &'a EventLog,
    prefix: &'static str,
}

impl<'a> Bucket<'a> {
    const fn attempts(buckets: &'a Buckets) -> Self {
        Self { log: &buckets.attempts, prefix: THROTTLE_SUBJECT_PREFIX }
    }

    const fn closed(buckets: &'a Buckets) -> Self {
        Self { log: &buckets.closed, prefix: THROTTLE_CLOSED_SUBJECT_PREFIX }
    }

    const fn counts(buckets: &'a Buckets) -> Self {
        Self { log: &buckets.counts, prefix: THROTTLE_COUNTS_SUBJECT_PREFIX }
    }

    fn subject(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// A record, and the guard of the next write.
    async fn read<R: DeserializeOwned>(
        &self,
        key: &str,
    ) -> Result<(Option<R>, Guard), ThrottleError> {
        let Top { last, guard } = self.log.top(&self.subject(key)).await.map_err(failed)?;
        let Some(stored) = last else { return Ok((None, guard)) };
        let record = serde_json::from_slice(&stored.payload)
            .map_err(|error| failed(format!("{key} cannot be read: {error}")))?;
        Ok((Some(record), guard))
    }

    /// Writes a record; `false` when somebody else was faster.
    async fn write<R: Serialize>(
        &self,
        key: &str,
        record: &R,
        guard: Guard,
        life: Duration,
    ) -> Result<bool, ThrottleError> {
        let payload = serde_json::to_vec(record).map_err(failed)?;
        let write = Write::new(self.subject(key), guard, payload).expiring_after(life);
        let command = CommandId::from_uuid(ambient::new_uuid());
        match self.log.append(&Append::new(command, write)).await {
            Outcome::Stored(_) => Ok(true),
            Outcome::Conflict | Outcome::Duplicate => Ok(false),
            Outcome::Unknown | Outcome::Unavailable => Err(failed("no answer to a write")),
            outcome @ (Outcome::Full | Outcome::Refused(..)) => {
                Err(failed(format!("a write was refused: {outcome:?}")))
            }
        }
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
