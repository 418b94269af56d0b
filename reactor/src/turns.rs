//! Turns of the eraser: one message at a time, of all users and streams together, and time in between that belongs
//! to everybody else.
//!
//! For each message that it erases the server rewrites and syncs a block of up to 8 MB, and holds the lock of the
//! stream meanwhile: an append, and so a command, waits for it. Two at once take as long as one after the other, and
//! an append has to wait for both (docs/adr/0015). Each reactor takes turns by itself: two of them are two at once.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

/// Longest rest after one message: a server that was slow once keeps nothing waiting for long.
const REST_MAX: Duration = Duration::from_secs(1);

/// One turn at a time, in the order of those who ask: a user with very many messages delays no other one by more
/// than a message each time.
pub(crate) struct Turns {
    busy_percent: u64,
    turn: Mutex<()>,
}

impl Turns {
    /// `busy_percent` of the time, 1 to 100, may be spent on erasing.
    pub(crate) fn new(busy_percent: u64) -> Self {
        Self { busy_percent, turn: Mutex::default() }
    }

    /// Does something that keeps the server busy, and rests.
    pub(crate) async fn take<T>(&self, work: impl Future<Output = T>) -> T {
        let _turn = self.turn.lock().await;
        let started = Instant::now();
        let result = work.await;
        sleep(rest(started.elapsed(), self.busy_percent)).await;
        result
    }
}

/// How long to rest after work, so that work is `busy_percent` of the time.
fn rest(worked: Duration, busy_percent: u64) -> Duration {
    let busy = busy_percent.clamp(1, 100);
    let micros = u64::try_from(worked.as_micros()).unwrap_or(u64::MAX);
    let rest = micros.saturating_mul(100 - busy) / busy;
    Duration::from_micros(rest).min(REST_MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn rests_for_the_share_of_the_time_that_is_left_to_others() {
        let work = Duration::from_millis(20);
        let rests = [100, 50, 25, 1].map(|percent| rest(work, percent).as_millis());
        assert_eq!(rests, [0, 20, 60, 1_000]);
    }

    #[tokio::test]
    async fn nothing_is_erased_beside_something_else_or_while_the_eraser_rests() {
        let work_time = Duration::from_millis(5);
        let (turns, under_way) = (Turns::new(50), AtomicUsize::new(0));
        let work = async || {
            assert_eq!(under_way.fetch_add(1, Ordering::Relaxed), 0, "something else is erased");
            sleep(work_time).await;
            under_way.fetch_sub(1, Ordering::Relaxed);
        };
        let started = Instant::now();
        tokio::join!(turns.take(work()), turns.take(work()), turns.take(work()));
        assert!(started.elapsed() >= work_time * 6, "three times work and rest");
    }
}
