use super::*;

const S: u64 = 1_000;
const MINUTE: u64 = 60 * S;
const DAY: u64 = 24 * 60 * MINUTE;
const LIFE: u64 = 30 * MINUTE;
const LINKS: Quota = Quota { burst: 3, interval_ms: 10 * MINUTE, overflow: Overflow::Drop };
const NOTICES: Quota = Quota { burst: 1, interval_ms: 10 * MINUTE, overflow: Overflow::Coalesce };

fn mail(number: u64, ordered_at_ms: u64) -> Candidate {
    Candidate { order: Uuid::from_u128(number.into()), ordered_at_ms, reset: None }
}

/// A mailbox and the record of links in the log, as the mailer and the command side keep them.
#[derive(Default)]
struct Account {
    sent: Sent,
    serial: Option<Uuid>,
    credential: u64,
    /// Links in the mailbox: serial, end, the credential they are bound to.
    mailbox: Vec<(Uuid, u64, u64)>,
    orders: u64,
}

impl Account {
    fn request(&mut self, now: u64) -> Verdict {
        self.orders += 1;
        let state =
            ResetState { serial: self.serial, bound_to: Position(self.credential), life_ms: LIFE };
        let mail = Candidate { reset: Some(state), ..mail(self.orders, now) };
        let verdict = self.sent.admit(&mail, now, &LINKS);
        if let Verdict::Send { repeat } = verdict {
            let serial = repeat.unwrap_or(mail.order);
            self.serial = Some(serial);
            self.mailbox.push((serial, now + LIFE, self.credential));
        }
        verdict
    }

    /// The longest that a link in the mailbox can still be used.
    fn usable_ms(&self, now: u64) -> u64 {
        self.mailbox
            .iter()
            .filter(|(serial, _, bound_to)| {
                self.serial == Some(*serial) && *bound_to == self.credential
            })
            .map(|(_, ends_at, _)| ends_at.saturating_sub(now))
            .max()
            .unwrap_or(0)
    }

    fn reset(&mut self) {
        self.serial = None;
        self.credential += 1;
    }
}

#[test]
fn an_owner_has_a_good_link_at_any_time_of_an_attack() {
    // Whatever the rhythm of the attack, whoever asks has a link that lasts for most of its life.
    for every_s in [1, 7, 59, 301, 599, 600, 601, 899, 1_201] {
        let mut account = Account::default();
        for second in 0..86_400 {
            let now = DAY + second * S;
            if second % every_s == 0 {
                account.request(now);
            }
            // The owner may ask at any moment; whether this mail goes out or not, one is there.
            if second % 97 == 0 {
                account.request(now);
                let usable = account.usable_ms(now);
                assert!(usable >= LIFE - LINKS.interval_ms, "{every_s} {second}: {usable}");
            }
        }
        let mails = account.mailbox.len();
        assert!(mails <= 3 + 3 + 24 * 6, "{every_s}: {mails} mails in a day");
    }
}

#[test]
fn a_flood_of_requests_voids_no_link_that_was_mailed() {
    let mut account = Account::default();
    for second in 0..7_200 {
        account.request(DAY + second * S);
    }
    let mut serials: Vec<Uuid> = account.mailbox.iter().map(|(serial, ..)| *serial).collect();
    serials.dedup();
    assert_eq!(serials.len(), 2, "the first request of the flood and the second: {serials:?}");
    assert_eq!(account.mailbox.len(), 3 + 11);
}

#[test]
fn whoever_used_a_link_gets_another_one_in_the_middle_of_an_attack() {
    let mut account = Account::default();
    for second in 0..100 {
        account.request(DAY + second * S);
    }
    for round in 0..2 {
        account.reset();
        let now = DAY + (100 + round) * S;
        assert_eq!(account.request(now), Verdict::Send { repeat: None }, "round {round}");
        assert_eq!(account.usable_ms(now), LIFE);
        assert_eq!(account.request(now), Verdict::Never, "there is a good one now");
    }
}

#[test]
fn a_second_request_replaces_the_link_and_only_the_last_of_a_burst_repeats_it() {
    let mut account = Account::default();
    let verdicts: Vec<Verdict> = (0..4).map(|n| account.request(DAY + n * S)).collect();
    let second = Uuid::from_u128(2);
    assert_eq!(
        verdicts,
        [
            Verdict::Send { repeat: None },
            Verdict::Send { repeat: None },
            Verdict::Send { repeat: Some(second) },
            Verdict::Never,
        ]
    );
    // A link that is used up is not repeated.
    account.serial = None;
    assert_eq!(account.request(DAY + 4 * S), Verdict::Send { repeat: None });
}

#[test]
fn links_fill_again_one_by_one() {
    let mut sent = Sent::default();
    let mut admit = |number, now| sent.admit(&mail(number, now), now, &LINKS);
    for n in 0..3 {
        assert_eq!(admit(n, DAY), Verdict::Send { repeat: None });
    }
    assert_eq!(admit(3, DAY + 10 * MINUTE - 1), Verdict::Never);
    assert_eq!(admit(3, DAY + 10 * MINUTE), Verdict::Send { repeat: None });
    assert_eq!(admit(4, DAY + 10 * MINUTE), Verdict::Never);
    for n in 5..8 {
        assert_eq!(admit(n, 2 * DAY), Verdict::Send { repeat: None });
    }
    assert_eq!(admit(8, 2 * DAY), Verdict::Never);
}

#[test]
fn a_mail_that_is_tried_again_is_counted_once() {
    let mut sent = Sent::default();
    for _ in 0..10 {
        assert_eq!(sent.admit(&mail(1, DAY), DAY, &LINKS), Verdict::Send { repeat: None });
    }
    for n in 2..4 {
        assert_eq!(sent.admit(&mail(n, DAY), DAY, &LINKS), Verdict::Send { repeat: None });
    }
    assert_eq!(sent.admit(&mail(4, DAY), DAY, &LINKS), Verdict::Never);
}

#[test]
fn one_notice_tells_of_everything_that_happened_until_it() {
    let mut sent = Sent::default();
    let mut admit = |number, ordered, now| sent.admit(&mail(number, ordered), now, &NOTICES);
    assert_eq!(admit(1, DAY, DAY), Verdict::Send { repeat: None });
    // The second change waits for its turn and stands for the hundreds after it.
    let second = DAY + MINUTE;
    assert_eq!(admit(2, second, second), Verdict::Later(9 * MINUTE));
    for n in 3..300 {
        assert_eq!(admit(n, second + n, second + n), Verdict::Never);
    }
    let turn = DAY + 10 * MINUTE;
    assert_eq!(admit(2, second, turn - 1), Verdict::Later(1));
    assert_eq!(admit(2, second, turn), Verdict::Send { repeat: None });
    assert_eq!(admit(301, turn - 1, turn), Verdict::Never, "told already");
    assert_eq!(admit(302, turn + 1, turn + 1), Verdict::Later(10 * MINUTE - 1));
}

#[test]
fn what_must_not_be_lost_waits_for_its_turn() {
    let quota = Quota { overflow: Overflow::Wait, ..LINKS };
    let mut sent = Sent::default();
    for n in 0..3 {
        assert_eq!(sent.admit(&mail(n, DAY), DAY, &quota), Verdict::Send { repeat: None });
    }
    for n in 3..5 {
        assert_eq!(sent.admit(&mail(n, DAY), DAY, &quota), Verdict::Later(10 * MINUTE));
    }
    let turn = DAY + 10 * MINUTE;
    assert_eq!(sent.admit(&mail(4, DAY), turn, &quota), Verdict::Send { repeat: None });
    assert_eq!(sent.admit(&mail(3, DAY), turn, &quota), Verdict::Later(10 * MINUTE));
}

#[test]
fn a_clock_that_runs_ahead_closes_nothing_for_longer_than_a_bucket() {
    let mut sent = Sent::default();
    for n in 0..3 {
        sent.admit(&mail(n, DAY), 400 * DAY, &LINKS);
    }
    let later = DAY + 10 * MINUTE;
    assert_eq!(sent.admit(&mail(9, DAY), DAY, &LINKS), Verdict::Never);
    assert!(matches!(Quota { burst: 1, ..LINKS }.wait_ms(400 * DAY, later), 1..=600_000));
}

#[test]
fn a_record_lives_as_long_as_it_says_something() {
    let mut account = Account::default();
    account.request(DAY);
    assert_eq!(account.sent.life_ms(DAY, &LINKS), LIFE + LINKS.interval_ms);
    let mut sent = Sent::default();
    sent.admit(&mail(1, DAY), DAY, &NOTICES);
    assert_eq!(sent.life_ms(DAY, &NOTICES), 20 * MINUTE);
}
