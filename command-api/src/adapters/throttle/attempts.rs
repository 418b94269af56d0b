//! Attempts at passwords: who has to wait after wrong ones, and which accounts are closed.

use std::time::Duration;

use service_kit::event_log::THROTTLE_RECORD_LIFE;
use tokio::time::{Instant, sleep, timeout_at};

use super::bucket::Bucket;
use super::{NatsThrottle, Start, between, millis};
use crate::domain::{Attempts, Begin, Policy, Verdict};
use crate::ports::throttle::{AttemptKey, Refusal, Slot, SlotKind, ThrottleError};

/// Shortest pause of an attempt that waits for others, in milliseconds.
const WAIT_PAUSE_MIN_MS: u64 = 20;
/// Longest such pause, in milliseconds.
const WAIT_PAUSE_MAX_MS: u64 = 50;
/// How long an attempt waits for its turn at a record before it is refused.
const TURN_WAIT_MAX: Duration = Duration::from_secs(5);
/// How long a slot is kept for an attempt that does not tell.
const RESERVATION: Duration = Duration::from_secs(10);

impl NatsThrottle {
    /// The records of what is watched, the narrowest first.
    pub(super) fn slots(&self, watched: &AttemptKey<'_>) -> Vec<Slot> {
        let account = |subject| vec![Slot { subject, kind: SlotKind::Account }];
        match watched {
            AttemptKey::Account(email) => {
                account(self.record("account", email.canonical().as_bytes()))
            }
            AttemptKey::Caller(user, session) => {
                let ids = [*user.as_uuid().as_bytes(), *session.as_uuid().as_bytes()];
                account(self.record("caller", ids.as_flattened()))
            }
            AttemptKey::Address(address) => self
                .networks(*address)
                .into_iter()
                .map(|(key, factor)| Slot {
                    subject: self.record("address", &key),
                    kind: factor.map_or(SlotKind::Network, SlotKind::WiderNetwork),
                })
                .collect(),
        }
    }

    pub(super) fn policy(&self, slot: &Slot) -> Policy {
        let settings = &self.settings;
        let (reservation_ms, memory_ms) = (millis(RESERVATION), millis(THROTTLE_RECORD_LIFE));
        if slot.kind == SlotKind::Account {
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
                free_failures: settings.address_failures_free.saturating_mul(slot.kind.factor()),
                delay_max_ms: settings.address_delay_max_s.saturating_mul(1_000),
                failures_max: None,
                halving_ms: Some(settings.address_halving_s.saturating_mul(1_000)),
                right_forgets: false,
                reservation_ms,
                memory_ms,
            }
        }
    }

    pub(super) fn refusal(&self, slot: &Slot, retry_after: Duration) -> Refusal {
        let settings = &self.settings;
        let (policy, quota, window_s) = if slot.kind == SlotKind::Account {
            ("account", settings.account_failures_free, settings.account_delay_max_s)
        } else {
            let quota = settings.address_failures_free.saturating_mul(slot.kind.factor());
            ("address", quota, settings.address_halving_s)
        };
        self.refused(Refusal { policy, quota, window: Duration::from_secs(window_s), retry_after })
    }

    /// A slot at one record; waits while only attempts under way are in the way.
    pub(super) async fn begin_at(
        &self,
        id: u64,
        slot: &Slot,
        start: Start,
    ) -> Result<Begin, ThrottleError> {
        let policy = self.policy(slot);
        let deadline = start.at + Duration::from_millis(self.settings.wait_max_ms);
        let mut waiting = None;
        loop {
            let turn = timeout_at(start.at + TURN_WAIT_MAX, self.turn(&slot.subject)).await;
            let Ok(turn) = turn else { return Ok(Begin::Wait) };
            let begin = self
                .change_attempts(slot, &policy, |record| {
                    let now_ms = start.now_ms();
                    match record.begin(id, now_ms, &policy) {
                        Begin::Go => {
                            let keeps = !matches!(slot.kind, SlotKind::WiderNetwork(_));
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

    pub(super) async fn finish_at(
        &self,
        id: u64,
        slot: &Slot,
        verdict: Verdict,
        start: Start,
    ) -> Result<(), ThrottleError> {
        if matches!(slot.kind, SlotKind::WiderNetwork(_)) && verdict != Verdict::Wrong {
            return Ok(());
        }
        let policy = self.policy(slot);
        let _turn = self.turn(&slot.subject).await;
        self.change_attempts(slot, &policy, |record| {
            let now_ms = start.now_ms();
            record.finish(id, verdict, now_ms, &policy);
            ((), Some(record.life_ms(now_ms, &policy)))
        })
        .await
    }

    /// Changes a record of attempts. One that closes an account is copied to where nothing is dropped, and one that
    /// does so no more is taken out there first: whatever comes in between, nothing is open that should not be.
    pub(super) async fn change_attempts<T>(
        &self,
        slot: &Slot,
        policy: &Policy,
        decide: impl Fn(&mut Attempts) -> (T, Option<u64>),
    ) -> Result<T, ThrottleError> {
        let attempts = Bucket::attempts(&self.buckets);
        if slot.kind != SlotKind::Account {
            return self.change(attempts, None, &slot.subject, decide).await;
        }
        let closed = Bucket::closed(&self.buckets);
        let is_copied = |record: &Attempts| record.closes(policy);
        self.change_copied(attempts, closed, &slot.subject, decide, is_copied).await
    }
}
