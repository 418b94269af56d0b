//! Paces the eraser: one message at a time over all users and streams, with rests in between while the log is in use.
//!
//! For each message that it erases, the server rewrites and syncs a block of up to 8 MB and holds the lock of the
//! stream meanwhile, so an append, and with it a command, waits. Two erasures at once take as long as one after the
//! other, and an append has to wait for both (docs/adr/0015). Each reactor paces itself: two reactors erase two
//! messages at once.

use std::time::Duration;

use events::Position;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

/// Longest rest after one message: a server that was slow once delays the eraser for at most this long.
const REST_MAX: Duration = Duration::from_secs(1);
/// How long after a write the log counts as in use.
const USED_FOR: Duration = Duration::from_secs(5);

/// The ends of the streams that commands and logins write to.
pub(crate) type Ends = [Position; 2];

/// One turn at a time, first come, first served: a user with very many messages delays another one by at most one
/// message each time.
pub(crate) struct Turns {
    busy_percent: u64,
    seen: Mutex<Seen>,
}

/// The ends at the last turn.
#[derive(Default)]
struct Seen {
    ends: Option<Ends>,
    used_at: Option<Instant>,
}

impl Turns {
    /// `busy_percent` of the time, 1 to 100, may be spent on erasing while the log is in use.
    pub(crate) fn new(busy_percent: u64) -> Self {
        Self { busy_percent, seen: Mutex::default() }
    }

    /// Runs work that keeps the server busy, and rests if somebody else has written recently, according to the ends
    /// that are read then. If they cannot be read, the server is busy.
    pub(crate) async fn take<T>(
        &self,
        work: impl Future<Output = T>,
        ends: impl Future<Output = Option<Ends>>,
    ) -> T {
        let mut seen = self.seen.lock().await;
        let started = Instant::now();
        let result = work.await;
        let worked = started.elapsed();
        if seen.is_used(ends.await, Instant::now()) {
            sleep(rest(worked, self.busy_percent)).await;
        }
        result
    }
}

impl Seen {
    fn is_used(&mut self, ends: Option<Ends>, now: Instant) -> bool {
        if ends.is_none() || ends != self.ends {
            self.ends = ends;
            self.used_at = Some(now);
        }
        self.used_at.is_some_and(|at| now.duration_since(at) < USED_FOR)
    }
}

/// How long to rest after work, so that work takes `busy_percent` of the time.
fn rest(worked: Duration, busy_percent: u64) -> Duration {
    let busy = busy_percent.clamp(1, 100);
    let micros = u64::try_from(worked.as_micros()).unwrap_or(u64::MAX);
    let rest = micros.saturating_mul(100 - busy) / busy;
    Duration::from_micros(rest).min(REST_MAX)
}

#[cfg(test)]
mod tests {
    use std::future::ready;
    use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn rests_for_the_share_of_the_time_that_is_left_to_others() {
        let work = Duration::from_millis(20);
        let rests = [100, 50, 25, 1].map(|percent| rest(work, percent).as_millis());
        assert_eq!(rests, [0, 20, 60, 1_000]);
    }

    #[test]
    fn the_log_is_in_use_until_nobody_has_written_for_a_while() {
        let (mut seen, start) = (Seen::default(), Instant::now());
        let mut is_used = |ends: Option<[u64; 2]>, seconds| {
            seen.is_used(ends.map(|ends| ends.map(Position)), start + Duration::from_secs(seconds))
        };
        assert!(is_used(Some([7, 3]), 0), "nobody knows what was before");
        assert!(is_used(Some([7, 3]), 4));
        assert!(!is_used(Some([7, 3]), 6), "nobody writes");
        assert!(is_used(Some([7, 4]), 7), "somebody logs in");
        assert!(!is_used(Some([7, 4]), 13));
        assert!(is_used(None, 14), "the log does not answer");
    }

    #[tokio::test]
    async fn nothing_is_erased_beside_something_else_or_while_the_eraser_rests() {
        let work_time = Duration::from_millis(5);
        let (turns, under_way, end) = (Turns::new(50), AtomicUsize::new(0), AtomicU64::new(0));
        let work = async || {
            assert_eq!(under_way.fetch_add(1, Ordering::Relaxed), 0, "something else is erased");
            sleep(work_time).await;
            under_way.fetch_sub(1, Ordering::Relaxed);
        };
        // Somebody writes all the time.
        let ends = async || Some([Position(end.fetch_add(1, Ordering::Relaxed)), Position(0)]);
        let started = Instant::now();
        tokio::join!(
            turns.take(work(), ends()),
            turns.take(work(), ends()),
            turns.take(work(), ready(None))
        );
        assert!(started.elapsed() >= work_time * 6, "three times work and rest");
    }
}
