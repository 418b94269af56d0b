//! Removal of unverified accounts by the operator: by the rules of the command API, without a token.

use events::{Event, Timestamp, UserId};
use service_kit::commands::Request;
use service_kit::config::Settings;

use super::App;
use crate::application::{Removal, UnusedSince};
use crate::domain::is_self_registration;

/// Seconds per day.
const DAY_S: u64 = 86_400;

/// Unverified accounts that were unused for some days.
#[derive(Debug, Clone)]
pub struct Unverified {
    since: UnusedSince,
    /// The same in every event of one run; it states why a user was deleted.
    reason: String,
}

impl Unverified {
    /// As of now. `reason` goes into the events as the id of the request.
    #[must_use]
    pub fn of(settings: &Settings, kept_days: u64, now: Timestamp, reason: String) -> Self {
        let mail = &settings.mail;
        // A link is valid from its sending on, which is given up after this time.
        let link_lives_s = [mail.set_password_link_s, mail.verify_link_s, mail.email_link_s]
            .into_iter()
            .fold(mail.reset_link_s, u64::max);
        let since = UnusedSince {
            used: now.minus_seconds(kept_days.saturating_mul(DAY_S)),
            link_ordered: now.minus_seconds(mail.give_up_s.saturating_add(link_lives_s)),
        };
        Self { since, reason }
    }

    /// Use from here on keeps an account.
    #[must_use]
    pub const fn unused_since(&self) -> Timestamp {
        self.since.used
    }

    /// Whether an event created an account that may be removed.
    #[must_use]
    pub fn begins_with(&self, event: &Event) -> bool {
        is_self_registration(event) && event.time < self.since.used
    }
}

impl App {
    /// Deletes a user who registered alone and whom [`Unverified::begins_with`] selects, unless there is a reason to
    /// keep the account. With `dry_run` nothing is changed.
    ///
    /// # Errors
    /// A text for the operator: whether the user was deleted may be unknown; run it again.
    pub async fn remove_unverified(
        &self,
        user: UserId,
        unverified: &Unverified,
        dry_run: bool,
    ) -> Result<Removal, String> {
        let correlation_id = Some(unverified.reason.clone());
        let request = Request { correlation_id, ..Request::of_the_system() };
        let removal = self.users.remove_unverified(user, unverified.since, dry_run, request);
        removal.await.map_err(|error| format!("{user}: {error}"))
    }
}
