//! Quotas: how often something may be done that nobody calls right or wrong.

use std::time::Duration;

use events::UserId;

use super::bucket::Bucket;
use super::{NatsThrottle, Start};
use crate::domain::{DAY_MS, Exhausted, Quota, QuotaPolicy, Window};
use crate::ports::throttle::{Refusal, ThrottleError, UserAction};

impl NatsThrottle {
    /// The name and the numbers of the limit on what a user does rightly.
    pub(super) fn quota(&self, action: UserAction) -> (&'static str, QuotaPolicy) {
        let settings = &self.settings;
        let (policy, per_minute_max, per_day_max) = match action {
            UserAction::Write => {
                ("writes", settings.writes_per_minute_max, settings.writes_per_day_max)
            }
            UserAction::Refresh => {
                ("refreshes", settings.refreshes_per_minute_max, settings.refreshes_per_day_max)
            }
            UserAction::Login => {
                ("logins", settings.logins_per_minute_max, settings.logins_per_day_max)
            }
            UserAction::PasswordCheck => (
                "password-checks",
                settings.password_checks_per_minute_max,
                settings.password_checks_per_day_max,
            ),
        };
        (policy, QuotaPolicy { per_minute_max, per_day_max })
    }

    /// Counts what a user does rightly: here, as long as it is seldom, and in the bucket from then on.
    pub(super) async fn allow_action(
        &self,
        user: UserId,
        action: UserAction,
        start: Start,
    ) -> Result<Result<(), Refusal>, ThrottleError> {
        let (policy, quota) = self.quota(action);
        if self.quotas.let_in(user, action, quota, start.now_ms()) {
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
    pub(super) async fn count_window(
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
}
