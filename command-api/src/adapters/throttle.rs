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
const POLICIES: [&str; 5] = ["account", "address", "mails", "registrations", "resets"];
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
        counted: Counted<'_>,
        now: Timestamp,
    ) -> Result<Result<(), Refusal>, ThrottleError> {
        if !self.settings.enabled {
            return Ok(Ok(()));
        }
        let settings = &self.settings;
        let mails = (settings.mails_max, settings.mails_window_s);
        let requests = (settings.requests_max, settings.requests_window_s);
        let (policy, key, (max, window_s)) = match counted {
            Counted::MailTo(email) => ("mails", email.canonical().as_bytes().to_vec(), mails),
            Counted::RegistrationFrom(address) => ("registrations", network(address), requests),
            Counted::ResetRequestFrom(address) => ("resets", network(address), requests),
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
mod tests {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use events::EmailAddress;
    use nats_access::{Account, Role, TestTrust};
    use service_kit::config::Settings;
    use service_kit::event_log::{Limits, THROTTLE_STREAM, throttle_stream};

    use super::*;

    /// One server for all tests of this process, one account (so one bucket of its own) for each.
    fn trust() -> &'static TestTrust {
        static TRUST: OnceLock<TestTrust> = OnceLock::new();
        TRUST.get_or_init(|| TestTrust::with_accounts(16))
    }

    async fn connect(account: &Account, role: Role) -> async_nats::Client {
        let server = local_stack::testing::nats(|| trust().server_config().unwrap());
        async_nats::ConnectOptions::with_credentials(&account.creds(role).unwrap())
            .unwrap()
            .custom_inbox_prefix(role.inbox_prefix())
            .connect(server.url())
            .await
            .unwrap()
    }

    fn bucket(client: async_nats::Client) -> EventLog {
        let limits = Limits {
            request_timeout: Duration::from_secs(10),
            append_deadline: Duration::from_secs(20),
        };
        EventLog::new(client, THROTTLE_STREAM, limits)
    }

    /// What several processes have in common.
    struct Shared {
        account: &'static Account,
        key: SecretKey,
        settings: config::Throttle,
    }

    impl Shared {
        /// Nobody waits: how long something takes decides nothing then.
        fn without_bucket() -> Self {
            static NEXT: AtomicUsize = AtomicUsize::new(0);
            let settings = Settings::merge("", []).unwrap().throttle;
            Self {
                account: trust().account(NEXT.fetch_add(1, Ordering::Relaxed)),
                key: SecretKey::generate().unwrap(),
                settings: config::Throttle { wait_max_ms: 0, ..settings },
            }
        }

        async fn new() -> Self {
            let shared = Self::without_bucket();
            let operator = bucket(connect(shared.account, Role::Operator).await);
            operator
                .provision(&throttle_stream(&Settings::merge("", []).unwrap().log))
                .await
                .unwrap();
            shared
        }

        async fn process(&self) -> NatsThrottle {
            let log = bucket(connect(self.account, Role::CommandApi).await);
            NatsThrottle::new(log, &self.key, &self.settings)
        }
    }

    fn email(name: &str) -> EmailAddress {
        EmailAddress::parse(&format!("{name}@example.com")).unwrap()
    }

    /// Seconds after some day.
    fn at(seconds: u64) -> Timestamp {
        let day = Timestamp::try_from("2026-01-31T12:00:00Z".to_owned()).unwrap();
        Timestamp::from_datetime(day.as_datetime() + Duration::from_secs(seconds))
    }

    async fn begin(throttle: &NatsThrottle, name: &str, now: Timestamp) -> Admission {
        throttle.begin(&[Watched::Account(&email(name))], now).await.unwrap()
    }

    async fn fail(throttle: &NatsThrottle, name: &str, now: Timestamp) -> Result<(), Refusal> {
        match begin(throttle, name, now).await {
            Admission::Refused(refusal) => Err(refusal),
            Admission::Go(ticket) => {
                throttle.finish(ticket, Verdict::Wrong, now).await.unwrap();
                Ok(())
            }
        }
    }

    fn tickets(admissions: Vec<Admission>) -> Vec<Ticket> {
        admissions
            .into_iter()
            .filter_map(|admission| match admission {
                Admission::Go(ticket) => Some(ticket),
                Admission::Refused(_) => None,
            })
            .collect()
    }

    #[tokio::test]
    async fn parallel_guesses_over_two_processes_get_the_allowance_and_no_more() {
        let shared = Shared::new().await;
        let (one, other) = (shared.process().await, shared.process().await);
        let throttles = [&one, &other];
        let begun = join_all((0..50).map(|n| begin(throttles[n % 2], "ada", at(0)))).await;
        let tickets = tickets(begun);
        assert_eq!(tickets.len(), 5);
        for ticket in tickets {
            other.finish(ticket, Verdict::Wrong, at(60)).await.unwrap();
        }
        // Looked at from before the failures, so that no delay can pass while a test waits for its turn.
        let refusal = fail(&one, "ada", at(1)).await.unwrap_err();
        assert_eq!((refusal.policy, refusal.quota), ("account", 5));
        assert!(refusal.retry_after > Duration::ZERO);
        // A process that starts later knows it as well; another account is another matter.
        let later = shared.process().await;
        assert!(fail(&later, "ADA", at(1)).await.is_err());
        assert!(fail(&later, "grace", at(1)).await.is_ok());
    }

    /// Guesses that tell at once what they led to, as fast as they can.
    #[tokio::test]
    async fn parallel_guesses_that_fail_at_once_get_no_more_either() {
        let shared = Shared::new().await;
        let shared = Shared {
            settings: config::Throttle { wait_max_ms: 5_000, ..shared.settings },
            ..shared
        };
        let throttle = shared.process().await;
        let started = Instant::now();
        let guesses = join_all((0..50).map(|_| fail(&throttle, "ada", at(0)))).await;
        let failed = guesses.iter().filter(|guess| guess.is_ok()).count();
        // On a machine that stands still for seconds, delays pass: 1, 2, 4 s and so on.
        let passed = started.elapsed().as_secs() + 1;
        let allowed = 5 + usize::try_from(passed.ilog2()).unwrap();
        assert!((5..=allowed).contains(&failed), "{failed} of {allowed} after {passed} s");
    }

    #[tokio::test]
    async fn parallel_logins_of_one_user_all_succeed() {
        let shared = Shared::new().await;
        let settings = config::Throttle { wait_max_ms: 60_000, ..shared.settings.clone() };
        let shared = Shared { settings, ..shared };
        let (one, other) = (shared.process().await, shared.process().await);
        let throttles = [&one, &other];
        // Some failures before do not matter.
        for _ in 0..3 {
            fail(&one, "ada", at(0)).await.unwrap();
        }
        let logins = (0..20).map(|n| async move {
            let throttle = throttles[n % 2];
            match begin(throttle, "ada", at(0)).await {
                Admission::Refused(refusal) => Err(refusal),
                Admission::Go(ticket) => {
                    throttle.finish(ticket, Verdict::Right, at(0)).await.unwrap();
                    Ok(())
                }
            }
        });
        for login in join_all(logins).await {
            assert_eq!(login, Ok(()));
        }
        // And nothing is left of the failures.
        for _ in 0..5 {
            fail(&one, "ada", at(60)).await.unwrap();
        }
        assert!(fail(&one, "ada", at(1)).await.is_err());
    }

    #[tokio::test]
    async fn delays_grow_until_a_reset_opens_the_account() {
        let shared = Shared::new().await;
        let throttle = shared.process().await;
        let mut now = 0;
        for _ in 0..12 {
            // Far enough apart for every delay so far.
            now += 600;
            fail(&throttle, "ada", at(now)).await.unwrap();
        }
        let refusal = fail(&throttle, "ada", at(now + 30)).await.unwrap_err();
        let wait = refusal.retry_after.as_secs();
        // 2^7 s less the 30, give or take what the calls took.
        assert!((68..=128).contains(&wait), "{wait}");
        assert!(fail(&throttle, "ada", at(now + 64)).await.is_err());
        throttle.clear(&email("ada")).await.unwrap();
        for _ in 0..5 {
            fail(&throttle, "ada", at(now + 64)).await.unwrap();
        }
        assert!(fail(&throttle, "ada", at(now)).await.is_err());
    }

    #[tokio::test]
    async fn the_hundredth_failure_closes_the_password_until_a_reset() {
        let shared = Shared::new().await;
        let settings =
            config::Throttle { account_failures_max: 7, account_delay_max_s: 1, ..shared.settings };
        let shared = Shared { settings, ..shared };
        let throttle = shared.process().await;
        for n in 0..7 {
            fail(&throttle, "ada", at(n * 60)).await.unwrap();
        }
        let refusal = fail(&throttle, "ada", at(86_400)).await.unwrap_err();
        assert!(refusal.retry_after > Duration::from_hours(28 * 24), "{refusal:?}");
        throttle.clear(&email("ada")).await.unwrap();
        fail(&throttle, "ada", at(86_400)).await.unwrap();
    }

    #[tokio::test]
    async fn places_of_a_killed_process_are_given_up() {
        let shared = Shared::new().await;
        let killed = shared.process().await;
        let held = tickets(join_all((0..5).map(|_| begin(&killed, "ada", at(0)))).await);
        assert_eq!(held.len(), 5);
        drop(killed);
        let throttle = shared.process().await;
        let Admission::Refused(refusal) = begin(&throttle, "ada", at(0)).await else {
            panic!("there is no place");
        };
        assert_eq!(refusal.retry_after, AFTER_WAITING);
        assert!(matches!(begin(&throttle, "ada", at(20)).await, Admission::Go(_)));
    }

    #[tokio::test]
    async fn an_address_is_limited_over_all_accounts() {
        let shared = Shared::new().await;
        let settings = config::Throttle { address_failures_free: 3, ..shared.settings };
        let shared = Shared { settings, ..shared };
        let throttle = shared.process().await;
        let begin = |name: &'static str, address: &'static str, now: u64| {
            let throttle = &throttle;
            async move {
                let email = email(name);
                let address = address.parse().unwrap();
                let watched = [Watched::Account(&email), Watched::Address(address)];
                throttle.begin(&watched, at(now)).await.unwrap()
            }
        };
        for (name, address) in
            [("a", "2001:db8:0:1::1"), ("b", "2001:db8:0:1::2"), ("c", "2001:db8:0:1:ffff::3")]
        {
            let Admission::Go(ticket) = begin(name, address, 60).await else { panic!("{name}") };
            throttle.finish(ticket, Verdict::Wrong, at(60)).await.unwrap();
        }
        let Admission::Refused(refusal) = begin("d", "2001:db8:0:1::4", 1).await else {
            panic!("the /64 has failed enough");
        };
        assert_eq!((refusal.policy, refusal.quota), ("address", 3));
        // The account of the refused attempt has all its places, and its owner's neighbours are let in.
        let own = join_all((0..5).map(|_| self::begin(&throttle, "d", at(1)))).await;
        assert_eq!(tickets(own).len(), 5);
        let Admission::Go(ticket) = begin("f", "2001:db8:0:2::4", 1).await else {
            panic!("another /64 is somebody else")
        };
        throttle.finish(ticket, Verdict::Undecided, at(1)).await.unwrap();
        let Admission::Go(ticket) = begin("e", "::ffff:192.0.2.1", 60).await else {
            panic!("IPv4 is somebody else")
        };
        throttle.finish(ticket, Verdict::Undecided, at(60)).await.unwrap();
    }

    #[tokio::test]
    async fn mails_and_requests_are_counted() {
        let shared = Shared::new().await;
        let settings = config::Throttle { requests_max: 2, ..shared.settings };
        let shared = Shared { settings, ..shared };
        let (one, other) = (shared.process().await, shared.process().await);
        let (ada, grace) = (email("ada"), email("grace"));
        let mails =
            join_all((0..10).map(|n| [&one, &other][n % 2].allow(Counted::MailTo(&ada), at(0))))
                .await;
        assert_eq!(mails.iter().filter(|mail| **mail == Ok(Ok(()))).count(), 3);
        let refusal = one.allow(Counted::MailTo(&ada), at(1_800)).await.unwrap().unwrap_err();
        assert_eq!((refusal.policy, refusal.quota), ("mails", 3));
        // Half of the window is left, give or take what the calls took.
        let wait = refusal.retry_after.as_secs();
        assert!((1_740..=1_860).contains(&wait), "{wait}");
        assert_eq!(one.allow(Counted::MailTo(&grace), at(60)).await, Ok(Ok(())));
        assert_eq!(one.allow(Counted::MailTo(&ada), at(4_000)).await, Ok(Ok(())));

        let address = "192.0.2.1".parse().unwrap();
        for _ in 0..2 {
            assert_eq!(one.allow(Counted::RegistrationFrom(address), at(0)).await, Ok(Ok(())));
            assert_eq!(one.allow(Counted::ResetRequestFrom(address), at(0)).await, Ok(Ok(())));
        }
        assert!(one.allow(Counted::RegistrationFrom(address), at(0)).await.unwrap().is_err());
        assert!(one.allow(Counted::ResetRequestFrom(address), at(0)).await.unwrap().is_err());
    }

    /// A user who logs in without failures leaves nothing behind, and is let in again.
    #[tokio::test]
    async fn a_record_that_says_nothing_goes() {
        let shared = Shared::new().await;
        let throttle = shared.process().await;
        let place = throttle.place(&Watched::Account(&email("ada")));
        for _ in 0..2 {
            let Admission::Go(ticket) = begin(&throttle, "ada", at(0)).await else {
                panic!("nothing has failed")
            };
            throttle.finish(ticket, Verdict::Right, at(0)).await.unwrap();
            let mut left = 400;
            while throttle.log.last(&place.subject).await.unwrap().is_some() {
                left -= 1;
                assert!(left > 0, "the record outlives its second");
                sleep(Duration::from_millis(50)).await;
            }
        }
    }

    #[tokio::test]
    async fn nobody_is_named_in_the_bucket() {
        let shared = Shared::new().await;
        let throttle = shared.process().await;
        let (ada, address) = (email("ada"), "192.0.2.1".parse().unwrap());
        let watched = [Watched::Account(&ada), Watched::Address(address)];
        let Admission::Go(ticket) = throttle.begin(&watched, at(0)).await.unwrap() else {
            panic!("the first attempt")
        };
        throttle.finish(ticket, Verdict::Wrong, at(0)).await.unwrap();
        throttle.allow(Counted::MailTo(&ada), at(0)).await.unwrap().unwrap();
        let mut seen = 0;
        let mut position = events::Position(0);
        while let Some(stored) = throttle.log.next("$KV.THROTTLE.>", position).await.unwrap() {
            let text = String::from_utf8(stored.payload.to_vec()).unwrap();
            assert!(!text.contains("ada") && !text.contains("192"), "{text}");
            position = stored.position;
            seen += 1;
        }
        assert_eq!(seen, 3);
        // What they are under tells nothing without the key.
        let stranger = NatsThrottle::new(
            throttle.log.clone(),
            &SecretKey::generate().unwrap(),
            &shared.settings,
        );
        for place in watched.map(|watched| stranger.place(&watched)) {
            assert!(throttle.log.last(&place.subject).await.unwrap().is_none());
        }
        for place in watched.map(|watched| throttle.place(&watched)) {
            assert!(throttle.log.last(&place.subject).await.unwrap().is_some());
            assert!(!place.subject.contains("ada") && !place.subject.contains("192.0"));
        }
    }

    #[tokio::test]
    async fn without_an_answer_nothing_is_let_through_unless_limits_are_off() {
        let shared = Shared::without_bucket();
        let throttle = shared.process().await;
        let ada = email("ada");
        let watched = [Watched::Account(&ada)];
        assert!(throttle.begin(&watched, at(0)).await.is_err());
        assert!(throttle.allow(Counted::MailTo(&ada), at(0)).await.is_err());
        assert!(throttle.clear(&ada).await.is_err());
        let settings = config::Throttle { enabled: false, ..shared.settings };
        let open = Shared { settings, ..shared }.process().await;
        for _ in 0..200 {
            let Admission::Go(ticket) = open.begin(&watched, at(0)).await.unwrap() else {
                panic!("there are no limits")
            };
            open.finish(ticket, Verdict::Wrong, at(0)).await.unwrap();
            assert_eq!(open.allow(Counted::MailTo(&ada), at(0)).await, Ok(Ok(())));
        }
    }
}
