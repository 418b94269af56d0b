use events::{EmailAddress, UserId};
use nats_access::{Account, Role};
use service_kit::ambient;
use service_kit::config::Settings;
use service_kit::event_log::{
    Guard, THROTTLE_CLOSED_STREAM, THROTTLE_COUNTS_STREAM, THROTTLE_STREAM, throttle_closed_stream,
    throttle_counts_stream, throttle_stream,
};
use tokio::time::sleep;

use super::*;
use crate::adapters::testing::{account, connect, log};
use crate::domain::Window;

fn buckets(client: &async_nats::Client) -> Buckets {
    Buckets {
        attempts: log(client, THROTTLE_STREAM),
        closed: log(client, THROTTLE_CLOSED_STREAM),
        counts: log(client, THROTTLE_COUNTS_STREAM),
    }
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
        let settings = Settings::merge("", []).unwrap().throttle;
        Self {
            account: account(),
            key: SecretKey::generate().unwrap(),
            settings: config::Throttle { wait_max_ms: 0, ..settings },
        }
    }

    async fn new() -> Self {
        let shared = Self::without_bucket();
        let operator = buckets(&connect(shared.account, Role::Operator).await);
        let log = Settings::merge("", []).unwrap().log;
        operator.attempts.provision(&throttle_stream(&log)).await.unwrap();
        operator.closed.provision(&throttle_closed_stream(&log)).await.unwrap();
        operator.counts.provision(&throttle_counts_stream(&log)).await.unwrap();
        shared
    }

    async fn process(&self) -> NatsThrottle {
        let buckets = buckets(&connect(self.account, Role::CommandApi).await);
        NatsThrottle::new(buckets, self.key.clone(), &self.settings)
    }
}

fn email(name: &str) -> EmailAddress {
    EmailAddress::parse(&format!("{name}@example.com")).unwrap()
}

fn user() -> UserId {
    UserId::from_uuid(ambient::new_uuid())
}

/// Seconds after some day.
fn at(seconds: u64) -> Timestamp {
    let day = Timestamp::try_from("2026-01-31T12:00:00Z".to_owned()).unwrap();
    Timestamp::from_datetime(day.as_datetime() + Duration::from_secs(seconds))
}

async fn begin(throttle: &NatsThrottle, name: &str, now: Timestamp) -> Admission {
    throttle.begin(&[AttemptKey::Account(&email(name))], now).await.unwrap()
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
    let shared =
        Shared { settings: config::Throttle { wait_max_ms: 5_000, ..shared.settings }, ..shared };
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
    throttle.clear(&email("ada"), user()).await.unwrap();
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
    throttle.clear(&email("ada"), user()).await.unwrap();
    fail(&throttle, "ada", at(86_400)).await.unwrap();
}

/// Whoever fills the bucket of attempts opens no account with it: what is closed is somewhere else, too.
#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "a test writes what no service does")]
async fn a_closed_account_outlives_the_bucket_that_forgets() {
    let shared = Shared::new().await;
    let settings = config::Throttle { account_failures_max: 6, ..shared.settings };
    let shared = Shared { settings, ..shared };
    let throttle = shared.process().await;
    for n in 0..6 {
        fail(&throttle, "ada", at(n * 60)).await.unwrap();
    }
    fail(&throttle, "eve", at(0)).await.unwrap();
    // What a flood of other keys does.
    let operator = connect(shared.account, Role::Operator).await;
    let forget = "$JS.API.STREAM.PURGE.KV_THROTTLE";
    let purged = operator.request(forget, "".into()).await.unwrap();
    assert!(String::from_utf8_lossy(&purged.payload).contains("\"success\":true"), "{purged:?}");
    let refusal = fail(&throttle, "ada", at(86_400)).await.unwrap_err();
    assert!(refusal.retry_after > Duration::from_hours(28 * 24), "{refusal:?}");
    // A reset opens it in both.
    throttle.clear(&email("ada"), user()).await.unwrap();
    operator.request(forget, "".into()).await.unwrap();
    for _ in 0..5 {
        fail(&throttle, "ada", at(86_400)).await.unwrap();
    }
    // And so does a right password.
    let Admission::Go(ticket) = begin(&throttle, "ada", at(90_000)).await else { panic!("open") };
    throttle.finish(ticket, Verdict::Right, at(90_000)).await.unwrap();
    operator.request(forget, "".into()).await.unwrap();
    for _ in 0..5 {
        fail(&throttle, "ada", at(90_000)).await.unwrap();
    }
}

/// Where no closed account fits any more, no wrong password is answered as such.
#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "a test writes what no service does")]
async fn without_room_for_closed_accounts_nothing_is_told() {
    let shared = Shared::new().await;
    let throttle = shared.process().await;
    let client = connect(shared.account, Role::Operator).await;
    let mut full = Settings::merge("", []).unwrap().log;
    full.throttle_closed_bytes_max = 1 << 20;
    client.request("$JS.API.STREAM.DELETE.KV_THROTTLE_CLOSED", "".into()).await.unwrap();
    let closed = log(&client, THROTTLE_CLOSED_STREAM);
    closed.provision(&throttle_closed_stream(&full)).await.unwrap();
    let mut number = 0;
    for size in [100_000, 10_000, 1_000, 100, 1] {
        loop {
            number += 1;
            let subject = format!("$KV.THROTTLE_CLOSED.x.{number}");
            let stored = client.request(subject, vec![b'x'; size].into()).await.unwrap();
            if String::from_utf8_lossy(&stored.payload).contains("error") {
                break;
            }
        }
    }
    for _ in 0..4 {
        fail(&throttle, "ada", at(0)).await.unwrap();
    }
    let Admission::Go(ticket) = begin(&throttle, "ada", at(0)).await else { panic!("the fifth") };
    assert!(throttle.finish(ticket, Verdict::Wrong, at(0)).await.is_err());
    // Others log in.
    let Admission::Go(ticket) = begin(&throttle, "eve", at(0)).await else { panic!("another") };
    throttle.finish(ticket, Verdict::Right, at(0)).await.unwrap();
}

/// At the first start of this version: what was counted among the attempts still counts.
#[tokio::test]
async fn counts_of_the_version_before_are_read() {
    let shared = Shared::new().await;
    let throttle = shared.process().await;
    let from = "192.0.2.1".parse().unwrap();
    let key = throttle.record("resets", &throttle.networks(from)[0].0);
    let (max, mut window) = (shared.settings.requests_max, Window::default());
    for _ in 0..max {
        window.count(Start::new(at(0)).now_ms, max, 600_000).unwrap();
    }
    let attempts = Bucket::attempts(&throttle.buckets);
    let life = Duration::from_hours(1);
    assert!(attempts.write(&key, &window, Guard::absent(), life).await.unwrap());
    let counted = RateKey::ResetRequestFrom(from);
    assert!(throttle.allow(counted, at(60)).await.unwrap().is_err());
    assert_eq!(throttle.allow(counted, at(4_000)).await, Ok(Ok(())));
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
        panic!("there is no slot");
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
            let keys = [AttemptKey::Account(&email), AttemptKey::Address(address)];
            throttle.begin(&keys, at(now)).await.unwrap()
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
    // The account of the refused attempt has all its slots, and its owner's neighbours are let in.
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

/// Whoever has a whole site has not as many clients as it has parts.
#[tokio::test]
async fn a_larger_network_is_limited_over_all_its_parts() {
    let shared = Shared::new().await;
    let settings = config::Throttle {
        address_failures_free: 1,
        requests_max: 1,
        ipv6_56_factor: 2,
        ipv6_48_factor: 3,
        ..shared.settings
    };
    let shared = Shared { settings, ..shared };
    let (one, other) = (shared.process().await, shared.process().await);
    let throttles = [&one, &other];
    // Each from a /64 of its own; four /56 in two /48, all of one /32.
    let from = |n: usize| format!("2001:db8:{}:{:x}::1", n / 8, (n % 8) / 2 * 256 + n % 2);
    let mut let_in = (0, 0);
    for n in 0..16 {
        let (throttle, address) = (throttles[n % 2], from(n).parse().unwrap());
        let registered = throttle.allow(RateKey::RegistrationFrom(address), at(0)).await;
        let_in.0 += usize::from(registered == Ok(Ok(())));
        let keys = [AttemptKey::Address(address)];
        // Looked at from before the failures, so that no delay can pass while a test waits for its turn.
        if let Admission::Go(ticket) = throttle.begin(&keys, at(0)).await.unwrap() {
            throttle.finish(ticket, Verdict::Wrong, at(600)).await.unwrap();
            let_in.1 += 1;
        }
    }
    // Three of each /48, of which at most two of a /56; one from each /64 would be sixteen.
    assert_eq!(let_in, (6, 6));
    let same = from(0).parse().unwrap();
    let refusal = one.allow(RateKey::RegistrationFrom(same), at(0)).await.unwrap().unwrap_err();
    assert_eq!((refusal.policy, refusal.quota), ("registrations", 1));
    let elsewhere = "2001:db9::1".parse().unwrap();
    assert_eq!(one.allow(RateKey::RegistrationFrom(elsewhere), at(0)).await, Ok(Ok(())));
}

#[tokio::test]
async fn mails_and_requests_are_counted() {
    let shared = Shared::new().await;
    let settings = config::Throttle { requests_max: 2, ..shared.settings };
    let shared = Shared { settings, ..shared };
    let (one, other) = (shared.process().await, shared.process().await);
    let (ada, grace) = (user(), user());
    let mails =
        join_all((0..10).map(|n| [&one, &other][n % 2].allow(RateKey::MailAskedBy(ada), at(0))))
            .await;
    assert_eq!(mails.iter().filter(|mail| **mail == Ok(Ok(()))).count(), 3);
    let refusal = one.allow(RateKey::MailAskedBy(ada), at(900)).await.unwrap().unwrap_err();
    assert_eq!((refusal.policy, refusal.quota), ("mails", 3));
    // Half of the window is left, give or take what the calls took.
    let wait = refusal.retry_after.as_secs();
    assert!((840..=960).contains(&wait), "{wait}");
    assert_eq!(one.allow(RateKey::MailAskedBy(grace), at(60)).await, Ok(Ok(())));
    assert_eq!(one.allow(RateKey::MailAskedBy(ada), at(4_000)).await, Ok(Ok(())));

    let address = "192.0.2.1".parse().unwrap();
    for _ in 0..2 {
        assert_eq!(one.allow(RateKey::RegistrationFrom(address), at(0)).await, Ok(Ok(())));
        assert_eq!(one.allow(RateKey::ResetRequestFrom(address), at(0)).await, Ok(Ok(())));
    }
    assert!(one.allow(RateKey::RegistrationFrom(address), at(0)).await.unwrap().is_err());
    assert!(one.allow(RateKey::ResetRequestFrom(address), at(0)).await.unwrap().is_err());
}

#[tokio::test]
async fn what_a_user_does_rightly_is_limited_over_all_processes() {
    let shared = Shared::new().await;
    let settings = config::Throttle {
        // Too few for a part that is let through from memory.
        writes_per_day_max: 5,
        refreshes_per_day_max: 40,
        ..shared.settings
    };
    let shared = Shared { settings, ..shared };
    let (one, other) = (shared.process().await, shared.process().await);
    let throttles = [&one, &other];
    let (ada, eve) = (user(), user());
    let count = async |user, deed, tries: usize| {
        let tries = (0..tries).map(|n| throttles[n % 2].allow(RateKey::By(user, deed), at(0)));
        join_all(tries).await.into_iter().filter(|counted| *counted == Ok(Ok(()))).count()
    };
    assert_eq!(count(ada, UserAction::Write, 20).await, 5);
    let refusal =
        one.allow(RateKey::By(ada, UserAction::Write), at(60)).await.unwrap().unwrap_err();
    assert_eq!((refusal.policy, refusal.quota), ("writes", 5));
    assert_eq!(refusal.window, Duration::from_hours(24));
    assert_eq!(count(eve, UserAction::Write, 1).await, 1, "another user is another matter");
    // Each of two processes lets a tenth through beside the 40.
    assert_eq!(count(ada, UserAction::Refresh, 60).await, 40 + 2 * 4);
    assert_eq!(other.allow(RateKey::By(ada, UserAction::Write), at(86_500)).await, Ok(Ok(())));
}

#[tokio::test]
async fn a_reset_forgets_repeated_passwords() {
    let shared = Shared::new().await;
    let settings = config::Throttle { password_checks_per_day_max: 2, ..shared.settings };
    let shared = Shared { settings, ..shared };
    let (throttle, ada) = (shared.process().await, user());
    let check = RateKey::By(ada, UserAction::PasswordCheck);
    for _ in 0..2 {
        assert_eq!(throttle.allow(check, at(0)).await, Ok(Ok(())));
    }
    assert!(throttle.allow(check, at(0)).await.unwrap().is_err());
    throttle.clear(&email("ada"), ada).await.unwrap();
    assert_eq!(throttle.allow(check, at(0)).await, Ok(Ok(())));
}

/// One attempt at Ada's account from an address; whether it was let in.
async fn attempt(throttle: &NatsThrottle, from: &str, verdict: Verdict) -> bool {
    let (ada, from) = (email("ada"), from.parse().unwrap());
    let keys = [AttemptKey::Address(from), AttemptKey::Account(&ada)];
    match throttle.begin(&keys, at(0)).await.unwrap() {
        Admission::Go(ticket) => {
            throttle.finish(ticket, verdict, at(0)).await.map(|()| true).unwrap()
        }
        Admission::Refused(_) => false,
    }
}

/// Attempts from one network, as many at once as it can, and as fast: the owner of the account, who comes from
/// elsewhere, gets a slot all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_on_an_account_does_not_keep_its_owner_out() {
    let shared = Shared::new().await;
    // The flood is never refused for its failures: what is looked at is the wait for a turn.
    let settings =
        config::Throttle { wait_max_ms: 2_000, account_failures_free: 99, ..shared.settings };
    let shared = Shared { settings, ..shared };
    let throttle = std::sync::Arc::new(shared.process().await);
    let mut flood = tokio::task::JoinSet::new();
    for _ in 0..400 {
        let throttle = std::sync::Arc::clone(&throttle);
        flood.spawn(async move {
            loop {
                attempt(&throttle, "203.0.113.1", Verdict::Undecided).await;
            }
        });
    }
    for n in 0..20 {
        let admitted = attempt(&throttle, "198.51.100.7", Verdict::Right).await;
        assert!(admitted, "attempt {n} of the owner was refused");
    }
    flood.shutdown().await;
}

/// A user who logs in without failures leaves nothing behind, and is let in again.
#[tokio::test]
async fn a_record_that_says_nothing_goes() {
    let shared = Shared::new().await;
    let throttle = shared.process().await;
    let slot = throttle.slots(&AttemptKey::Account(&email("ada"))).remove(0);
    for _ in 0..2 {
        let Admission::Go(ticket) = begin(&throttle, "ada", at(0)).await else {
            panic!("nothing has failed")
        };
        throttle.finish(ticket, Verdict::Right, at(0)).await.unwrap();
        let mut left = 400;
        while Bucket::attempts(&throttle.buckets)
            .read::<Attempts>(&slot.subject)
            .await
            .unwrap()
            .0
            .is_some()
        {
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
    let keys = [AttemptKey::Account(&ada), AttemptKey::Address(address)];
    let Admission::Go(ticket) = throttle.begin(&keys, at(0)).await.unwrap() else {
        panic!("the first attempt")
    };
    throttle.finish(ticket, Verdict::Wrong, at(0)).await.unwrap();
    throttle.allow(RateKey::MailAskedBy(user()), at(0)).await.unwrap().unwrap();
    let mut seen = 0;
    for log in [&throttle.buckets.attempts, &throttle.buckets.counts] {
        let mut position = events::Position(0);
        while let Some(stored) = log.next("$KV.>", position).await.unwrap() {
            let text = String::from_utf8(stored.payload.to_vec()).unwrap();
            assert!(!text.contains("ada") && !text.contains("192"), "{text}");
            position = stored.position;
            seen += 1;
        }
    }
    assert_eq!(seen, 3);
    // What they are under tells nothing without the key.
    let stranger = NatsThrottle::new(
        throttle.buckets.clone(),
        SecretKey::generate().unwrap(),
        &shared.settings,
    );
    for slot in keys.iter().flat_map(|keys| stranger.slots(keys)) {
        assert!(
            Bucket::attempts(&throttle.buckets)
                .read::<Attempts>(&slot.subject)
                .await
                .unwrap()
                .0
                .is_none()
        );
    }
    for slot in keys.iter().flat_map(|keys| throttle.slots(keys)) {
        assert!(
            Bucket::attempts(&throttle.buckets)
                .read::<Attempts>(&slot.subject)
                .await
                .unwrap()
                .0
                .is_some()
        );
        assert!(!slot.subject.contains("example") && !slot.subject.contains("192.0"));
    }
}

#[tokio::test]
async fn without_an_answer_nothing_is_let_through_unless_limits_are_off() {
    let shared = Shared::without_bucket();
    let throttle = shared.process().await;
    let ada = email("ada");
    let keys = [AttemptKey::Account(&ada)];
    assert!(throttle.begin(&keys, at(0)).await.is_err());
    assert!(throttle.allow(RateKey::MailAskedBy(user()), at(0)).await.is_err());
    assert!(throttle.clear(&ada, user()).await.is_err());
    let settings = config::Throttle { enabled: false, ..shared.settings };
    let open = Shared { settings, ..shared }.process().await;
    for _ in 0..200 {
        let Admission::Go(ticket) = open.begin(&keys, at(0)).await.unwrap() else {
            panic!("there are no limits")
        };
        open.finish(ticket, Verdict::Wrong, at(0)).await.unwrap();
        assert_eq!(open.allow(RateKey::MailAskedBy(user()), at(0)).await, Ok(Ok(())));
    }
}
