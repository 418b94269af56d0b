//! Limits on attempts and requests: pure decisions on small records, with the time as data.
//!
//! An attempt at a password reserves a slot before the password is compared, so that parallel guesses get no more
//! than the allowance. Its verdict is reported afterwards. An attempt that is only blocked by running attempts may
//! wait for them: once one of those was right, the way is free. So all parallel logins of one user succeed.

use serde::{Deserialize, Serialize};

/// The limits of one kind of record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Failures before delays begin.
    pub free_failures: u32,
    /// Longest delay after a failure, in milliseconds. Delays start at a second and double.
    pub delay_max_ms: u64,
    /// Failures in a row after which nothing is accepted until the record is cleared or expires.
    pub failures_max: Option<u32>,
    /// Time in which the failures halve, in milliseconds.
    pub halving_ms: Option<u64>,
    /// Whether a right attempt clears the failures.
    pub right_forgets: bool,
    /// How long a slot is kept for an attempt without a verdict, in milliseconds: a killed process must not lock
    /// anyone out.
    pub reservation_ms: u64,
    /// How long failures are remembered at most, in milliseconds.
    pub memory_ms: u64,
}

/// The attempts at one account or from one address.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Attempts {
    failures: u32,
    blocked_until_ms: u64,
    /// Time of the last failure.
    failed_at_ms: u64,
    /// Time up to which failures were halved.
    halved_at_ms: u64,
    in_flight: Vec<Reservation>,
}

/// The slot of a running attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Reservation {
    id: u64,
    until_ms: u64,
}

/// Whether an attempt may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// It may, and has its slot.
    Go,
    /// Running attempts have all the slots. Ask again in a moment.
    Wait,
    /// Not now.
    Refused {
        /// Time until it may be tried again.
        retry_after_ms: u64,
    },
}

/// The result of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The secret was right.
    Right,
    /// The secret was wrong.
    Wrong,
    /// It was never compared.
    Undecided,
}

impl Attempts {
    /// Decides on an attempt and reserves its slot. Idempotent for one id.
    pub fn begin(&mut self, id: u64, now_ms: u64, policy: &Policy) -> Begin {
        self.catch_up(now_ms, policy);
        if self.in_flight.iter().any(|reservation| reservation.id == id) {
            return Begin::Go;
        }
        if policy.failures_max.is_some_and(|max| self.failures >= max) {
            let until_ms = self.failed_at_ms.saturating_add(policy.memory_ms);
            return Begin::Refused { retry_after_ms: until_ms.saturating_sub(now_ms) };
        }
        if now_ms < self.blocked_until_ms {
            return Begin::Refused { retry_after_ms: self.blocked_until_ms - now_ms };
        }
        let under_way = self.in_flight.len() as u64;
        let places = u64::from(policy.free_failures.saturating_sub(self.failures)).max(1);
        if under_way >= places {
            return Begin::Wait;
        }
        let until_ms = now_ms.saturating_add(policy.reservation_ms);
        self.in_flight.push(Reservation { id, until_ms });
        Begin::Go
    }

    /// Releases an attempt's slot and counts its verdict, even if the slot has expired.
    pub fn finish(&mut self, id: u64, verdict: Verdict, now_ms: u64, policy: &Policy) {
        self.catch_up(now_ms, policy);
        self.in_flight.retain(|reservation| reservation.id != id);
        match verdict {
            Verdict::Right if policy.right_forgets => {
                self.failures = 0;
                self.blocked_until_ms = 0;
            }
            Verdict::Right | Verdict::Undecided => {}
            Verdict::Wrong => {
                if self.failures == 0 {
                    self.halved_at_ms = now_ms;
                }
                self.failures = self.failures.saturating_add(1);
                self.failed_at_ms = now_ms;
                if let Some(beyond) = self.failures.checked_sub(policy.free_failures) {
                    let doubled =
                        1_000_u64.saturating_mul(1_u64.checked_shl(beyond).unwrap_or(u64::MAX));
                    let until_ms = now_ms.saturating_add(doubled.min(policy.delay_max_ms));
                    self.blocked_until_ms = self.blocked_until_ms.max(until_ms);
                }
            }
        }
    }

    /// Whether failures keep others out, temporarily or for good: such a record must not be forgotten.
    pub const fn closes(&self, policy: &Policy) -> bool {
        self.failures >= policy.free_failures
    }

    /// How long the record matters, in milliseconds.
    pub fn life_ms(&self, now_ms: u64, policy: &Policy) -> u64 {
        let places = self.in_flight.iter().map(|r| r.until_ms).max().unwrap_or(0);
        let block = self.blocked_until_ms;
        let memory = match (self.failures, policy.halving_ms) {
            (0, _) => 0,
            (_, None) => self.failed_at_ms.saturating_add(policy.memory_ms),
            (failures, Some(halving_ms)) => {
                let halvings = u64::from(u32::BITS - failures.leading_zeros());
                self.halved_at_ms.saturating_add(halving_ms.saturating_mul(halvings))
            }
        };
        places.max(block).max(memory).saturating_sub(now_ms).clamp(1, policy.memory_ms)
    }

    /// Removes what has expired.
    fn catch_up(&mut self, now_ms: u64, policy: &Policy) {
        self.in_flight.retain(|reservation| now_ms < reservation.until_ms);
        match policy.halving_ms {
            None => {
                if now_ms >= self.failed_at_ms.saturating_add(policy.memory_ms) {
                    self.failures = 0;
                }
            }
            Some(halving_ms) => {
                let halvings = now_ms.saturating_sub(self.halved_at_ms).checked_div(halving_ms);
                let halvings = halvings.unwrap_or(0);
                let shift = u32::try_from(halvings).unwrap_or(u32::MAX);
                self.failures = self.failures.checked_shr(shift).unwrap_or(0);
                self.halved_at_ms =
                    self.halved_at_ms.saturating_add(halvings.saturating_mul(halving_ms));
            }
        }
    }
}

/// Requests without a verdict within a window: mails, registrations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Window {
    started_at_ms: u64,
    count: u32,
}

impl Window {
    /// Counts one more; the error is the time until the next one is accepted.
    pub fn count(&mut self, now_ms: u64, max: u32, window_ms: u64) -> Result<(), u64> {
        let ends_at_ms = self.started_at_ms.saturating_add(window_ms);
        // A start in the future comes from another machine's clock: within one window it counts as now.
        if now_ms >= ends_at_ms {
            *self = Self { started_at_ms: now_ms, count: 0 };
        } else if self.count >= max {
            return Err(ends_at_ms - now_ms);
        }
        self.count = self.count.saturating_add(1);
        Ok(())
    }
}

/// A minute, in milliseconds.
const MINUTE_MS: u64 = 60_000;
/// A day, in milliseconds.
pub const DAY_MS: u64 = 86_400_000;

/// The limits per minute and per day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaPolicy {
    /// Within a minute.
    pub per_minute_max: u32,
    /// Within a day.
    pub per_day_max: u32,
}

/// The requests of one user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Quota {
    minute: Window,
    day: Window,
}

/// The window that is exhausted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exhausted {
    /// How many it allows.
    pub max: u32,
    /// Its length, in milliseconds.
    pub window_ms: u64,
    /// Its end, in milliseconds.
    pub retry_after_ms: u64,
}

impl Quota {
    /// Counts one more, in both windows or in neither.
    pub fn count(&mut self, now_ms: u64, policy: QuotaPolicy) -> Result<(), Exhausted> {
        let mut after = *self;
        for (window, max, window_ms) in [
            (&mut after.minute, policy.per_minute_max, MINUTE_MS),
            (&mut after.day, policy.per_day_max, DAY_MS),
        ] {
            window.count(now_ms, max, window_ms).map_err(|retry_after_ms| Exhausted {
                max,
                window_ms,
                retry_after_ms,
            })?;
        }
        *self = after;
        Ok(())
    }

    /// Whether the record no longer matters.
    pub fn is_over(&self, now_ms: u64) -> bool {
        now_ms >= self.day.started_at_ms.saturating_add(DAY_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000;
    const DAY: u64 = 86_400 * S;

    fn account() -> Policy {
        Policy {
            free_failures: 5,
            delay_max_ms: 900 * S,
            failures_max: Some(100),
            halving_ms: None,
            right_forgets: true,
            reservation_ms: 10 * S,
            memory_ms: 30 * DAY,
        }
    }

    fn address() -> Policy {
        Policy {
            free_failures: 100,
            delay_max_ms: 60 * S,
            failures_max: None,
            halving_ms: Some(600 * S),
            right_forgets: false,
            ..account()
        }
    }

    /// Fails once, at a time when it is allowed.
    fn fail(attempts: &mut Attempts, id: u64, now: u64, policy: &Policy) {
        assert_eq!(attempts.begin(id, now, policy), Begin::Go, "attempt {id} at {now}");
        attempts.finish(id, Verdict::Wrong, now, policy);
    }

    /// When the next attempt is let in.
    fn open_in(attempts: &Attempts, now: u64, policy: &Policy) -> u64 {
        match attempts.clone().begin(u64::MAX, now, policy) {
            Begin::Go => 0,
            Begin::Refused { retry_after_ms } => retry_after_ms,
            Begin::Wait => panic!("nothing is under way"),
        }
    }

    #[test]
    fn delays_double_from_the_free_failures_on_and_the_hundredth_closes() {
        let (policy, mut attempts, mut now) = (account(), Attempts::default(), DAY);
        let mut delays = Vec::new();
        for id in 1..=100 {
            fail(&mut attempts, id, now, &policy);
            let delay = open_in(&attempts, now, &policy);
            if id < 100 && delay > 0 {
                // A millisecond less is too early.
                assert_eq!(open_in(&attempts, now + delay - 1, &policy), 1);
            }
            delays.push(delay / S);
            now += delay;
        }
        assert_eq!(
            delays[..17],
            [0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900, 900]
        );
        assert!(delays[14..99].iter().all(|delay| *delay == 900));
        assert_eq!(delays[99], 30 * 86_400, "closed until the record ends");
        let failed_at = now - 30 * DAY;
        assert_eq!(open_in(&attempts, failed_at + 29 * DAY, &policy), DAY);
        assert_eq!(open_in(&attempts, failed_at + 30 * DAY, &policy), 0);
    }

    #[test]
    fn parallel_attempts_get_the_allowance_and_no_more() {
        let (policy, mut attempts) = (account(), Attempts::default());
        for id in 0..5 {
            assert_eq!(attempts.begin(id, S, &policy), Begin::Go);
        }
        assert_eq!(attempts.begin(5, S, &policy), Begin::Wait);
        assert_eq!(attempts.begin(4, S, &policy), Begin::Go, "the same attempt again");
        attempts.finish(0, Verdict::Wrong, S, &policy);
        assert_eq!(attempts.begin(5, S, &policy), Begin::Wait, "a failure keeps its place");
        attempts.finish(1, Verdict::Undecided, S, &policy);
        assert_eq!(attempts.begin(5, S, &policy), Begin::Go, "what was not decided gives it back");
        for id in [2, 3, 4, 5] {
            attempts.finish(id, Verdict::Wrong, S, &policy);
        }
        assert_eq!(attempts.begin(6, S, &policy), Begin::Refused { retry_after_ms: S });
        // From here on one at a time.
        assert_eq!(attempts.begin(6, 2 * S, &policy), Begin::Go);
        assert_eq!(attempts.begin(7, 2 * S, &policy), Begin::Wait);
        attempts.finish(6, Verdict::Right, 2 * S, &policy);
        for id in 7..12 {
            assert_eq!(attempts.begin(id, 2 * S, &policy), Begin::Go, "the right one reopened");
        }
    }

    #[test]
    fn a_place_that_nobody_gives_back_is_given_up() {
        let (policy, mut attempts) = (account(), Attempts::default());
        for id in 0..5 {
            assert_eq!(attempts.begin(id, S, &policy), Begin::Go);
        }
        assert_eq!(attempts.begin(5, 11 * S - 1, &policy), Begin::Wait);
        assert_eq!(attempts.begin(5, 11 * S, &policy), Begin::Go);
        // Late, but wrong all the same.
        for id in 0..5 {
            attempts.finish(id, Verdict::Wrong, 12 * S, &policy);
        }
        assert_eq!(open_in(&attempts, 12 * S, &policy), S);
    }

    #[test]
    fn failures_of_an_address_fade_and_no_success_forgets_them() {
        let (policy, mut attempts, mut now) = (address(), Attempts::default(), DAY);
        for id in 1..=100 {
            fail(&mut attempts, id, now, &policy);
        }
        assert_eq!(open_in(&attempts, now, &policy), S);
        let mut last = 0;
        for id in 101..=110 {
            now += open_in(&attempts, now, &policy);
            fail(&mut attempts, id, now, &policy);
            last = open_in(&attempts, now, &policy);
        }
        assert_eq!(last, 60 * S, "the longest delay");
        now += last;
        assert_eq!(attempts.begin(111, now, &policy), Begin::Go);
        attempts.finish(111, Verdict::Right, now, &policy);
        assert!(attempts.failures >= 100, "{attempts:?}");
        // After ten minutes there are half of them.
        now += 600 * S;
        for id in 200..240 {
            fail(&mut attempts, id, now, &policy);
            assert_eq!(open_in(&attempts, now, &policy), 0);
        }
        now += 7 * 600 * S;
        attempts.begin(300, now, &policy);
        assert_eq!(attempts.failures, 0, "{attempts:?}");
    }

    #[test]
    fn a_record_lives_as_long_as_it_says_something() {
        let policy = account();
        let mut attempts = Attempts::default();
        attempts.begin(1, DAY, &policy);
        assert_eq!(attempts.life_ms(DAY, &policy), 10 * S);
        attempts.finish(1, Verdict::Right, DAY, &policy);
        assert_eq!(attempts.life_ms(DAY, &policy), 1);
        fail(&mut attempts, 2, DAY, &policy);
        assert_eq!(attempts.life_ms(DAY, &policy), 30 * DAY);
        let mut attempts = Attempts::default();
        fail(&mut attempts, 1, DAY, &address());
        assert_eq!(attempts.life_ms(DAY, &address()), 600 * S);
        fail(&mut attempts, 2, DAY, &address());
        assert_eq!(attempts.life_ms(DAY, &address()), 1_200 * S);
    }

    #[test]
    fn a_quota_holds_within_a_minute_and_within_a_day() {
        let policy = QuotaPolicy { per_minute_max: 2, per_day_max: 5 };
        let mut quota = Quota::default();
        let minute = |retry_after_ms| Exhausted { max: 2, window_ms: 60 * S, retry_after_ms };
        for start in [DAY, DAY + 60 * S] {
            assert_eq!(quota.count(start, policy), Ok(()));
            assert_eq!(quota.count(start + S, policy), Ok(()));
            assert_eq!(quota.count(start + 2 * S, policy), Err(minute(58 * S)));
        }
        // What a minute refused is not in the count of the day.
        assert_eq!(quota.count(DAY + 120 * S, policy), Ok(()));
        let day = Exhausted { max: 5, window_ms: DAY, retry_after_ms: DAY - 180 * S };
        assert_eq!(quota.count(DAY + 180 * S, policy), Err(day));
        assert!(!quota.is_over(2 * DAY - 1) && quota.is_over(2 * DAY));
        assert_eq!(quota.count(2 * DAY, policy), Ok(()));
    }

    #[test]
    fn a_window_lets_in_what_it_may() {
        let mut window = Window::default();
        for now in [DAY, DAY + 1, DAY + 2] {
            assert_eq!(window.count(now, 3, 3_600 * S), Ok(()));
        }
        assert_eq!(window.count(DAY + S, 3, 3_600 * S), Err(3_599 * S));
        assert_eq!(window.count(DAY + 3_600 * S - 1, 3, 3_600 * S), Err(1));
        assert_eq!(window.count(DAY + 3_600 * S, 3, 3_600 * S), Ok(()));
        assert_eq!(window.count(2 * DAY, 0, 3_600 * S), Ok(()), "a new window has its first");
    }
}
