//! Unverified accounts, as the operator removes them: by the rules of the command API, and without a token.

use events::{Event, Timestamp, UserId};
use service_kit::commands::Request;
use service_kit::config::Settings;

use super::App;
use crate::application::{Removal, UnusedSince};
use crate::domain::is_self_registration;

/// Seconds of a day.
const DAY_S: u64 = 86_400;

/// Unverified accounts that nobody has used for some days.
#[derive(Debug, Clone)]
pub struct Unverified {
    since: UnusedSince,
    /// The same in every event of one run; it says why a user was deleted.
    reason: String,
}

impl Unverified {
    /// Those of now. `reason` stands in the events as the id of the request.
    #[must_use]
    pub fn of(settings: &Settings, kept_days: u64, now: Timestamp, reason: String) -> Self {
        let mail = &settings.mail;
        // A link lives from its sending on, which is given up so long after its order.
        let link_lives_s = [mail.set_password_link_s, mail.verify_link_s, mail.email_link_s]
            .into_iter()
            .fold(mail.reset_link_s, u64::max);
        let since = UnusedSince {
            used: now.minus_seconds(kept_days.saturating_mul(DAY_S)),
            link_ordered: now.minus_seconds(mail.give_up_s.saturating_add(link_lives_s)),
        };
        Self { since, reason }
    }

    /// From when on a use keeps an account.
    #[must_use]
    pub const fn unused_since(&self) -> Timestamp {
        self.since.used
    }

    /// Whether an event made an account that may be among them.
    #[must_use]
    pub fn begins_with(&self, event: &Event) -> bool {
        is_self_registration(event) && event.time < self.since.used
    }
}

impl App {
    /// Deletes a user who registered alone and whom [`Unverified::begins_with`] tells, unless there is a reason to keep
    /// the account. With `dry_run` nothing is changed.
    ///
    /// # Errors
    /// In words, for the operator: whether it was deleted may be unknown, and another try finds out.
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
