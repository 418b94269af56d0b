//! How many mails one address gets: pure decisions on one small record per address and kind of mail, with the time as
//! data.
//!
//! Every kind has its own token bucket, so that no kind of mail can use up the quota of another. A bucket holds a few
//! mails and refills one by one. When it is empty, the kind of mail decides: a mail that its reader can request again
//! is dropped; a notice waits for its turn and reports everything that happened until then.
//!
//! # Resets
//! Anybody may request a reset of any address, so the cap must not lock out the owner. It guarantees that the owner has
//! a usable link at any time, whatever others request:
//! - While a valid link is in the mailbox, requests draw from the bucket. The last mail in it repeats the valid link
//!   with a new expiry instead of replacing it, so a flood of requests never voids a link that was mailed.
//! - While no valid link is in the mailbox (it was used, it expires soon, or the password changed), a request draws
//!   from a second bucket, which nobody can empty without using links.
//!
//! So a rejected request always means that a valid link was mailed less than [`Quota::interval_ms`] ago.

use events::Position;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Admitted mails in the record, so that a retry is not counted again.
const ADMITTED_MAX: usize = 16;

/// What happens to a mail when its bucket is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Overflow {
    /// It is not sent.
    Drop,
    /// One waits for its turn and covers all that follow in the meantime.
    Coalesce,
    /// Each waits for its turn.
    Wait,
}

/// The bucket of one kind of mail to one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Quota {
    /// Its size in mails.
    pub burst: u32,
    /// Time until it refills by one mail, in milliseconds.
    pub interval_ms: u64,
    /// What happens beyond it.
    pub overflow: Overflow,
}

/// A mail to be sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidate {
    /// Its job.
    pub order: Uuid,
    /// When it was requested.
    pub ordered_at_ms: u64,
    /// For a reset: the state of the link in the log.
    pub reset: Option<ResetState>,
}

/// The state of a user's password link in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ResetState {
    /// The serial of the valid link, if there is one.
    pub serial: Option<Uuid>,
    /// The position that a link is bound to: a later one voids it.
    pub bound_to: Position,
    /// Lifetime of a link, in milliseconds.
    pub life_ms: u64,
}

/// Whether a mail may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It may.
    Send {
        /// The serial of a link to mail once more, instead of a new one.
        repeat: Option<Uuid>,
    },
    /// Not before this many milliseconds.
    Later(u64),
    /// Not at all.
    Never,
}

/// The mails of one kind that one address got.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Sent {
    /// When the bucket will be full again.
    full_at_ms: u64,
    /// The same for the bucket of resets without a valid link in the mailbox.
    #[serde(default)]
    unlinked_full_at_ms: u64,
    /// The mails that were admitted last.
    #[serde(default)]
    admitted: Vec<Admitted>,
    /// The job that waits for its turn.
    #[serde(default)]
    waiting: Option<Uuid>,
    /// The reset link that was mailed last.
    #[serde(default)]
    mailed: Option<Mailed>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Admitted {
    order: Uuid,
    at_ms: u64,
    repeat: Option<Uuid>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Mailed {
    serial: Uuid,
    bound_to: Position,
    ends_at_ms: u64,
}

impl Sent {
    /// Decides about a mail and counts it. The same mail gets the same answer again and is counted once.
    pub(crate) fn admit(&mut self, mail: &Candidate, now_ms: u64, quota: &Quota) -> Verdict {
        if let Some(known) = self.admitted.iter().find(|known| known.order == mail.order) {
            return Verdict::Send { repeat: known.repeat };
        }
        let is_told = self.admitted.iter().any(|told| told.at_ms >= mail.ordered_at_ms);
        if quota.overflow == Overflow::Coalesce && is_told {
            return Verdict::Never;
        }
        let good = mail.reset.and_then(|state| self.good_link(&state, now_ms, quota));
        let wait_ms = match (mail.reset, good) {
            (Some(_), None) => quota.wait_ms(self.unlinked_full_at_ms, now_ms),
            (Some(_), Some(_)) | (None, _) => quota.wait_ms(self.full_at_ms, now_ms),
        };
        if wait_ms > 0 {
            return self.beyond(mail.order, wait_ms, quota.overflow);
        }
        if mail.reset.is_some() && good.is_none() {
            self.unlinked_full_at_ms = quota.draw(self.unlinked_full_at_ms, now_ms);
        }
        self.full_at_ms = quota.draw(self.full_at_ms, now_ms);
        let is_last = quota.wait_ms(self.full_at_ms, now_ms) > 0;
        let repeat = good.filter(|_| is_last);
        if let Some(state) = mail.reset {
            self.mailed = Some(Mailed {
                serial: repeat.unwrap_or(mail.order),
                bound_to: state.bound_to,
                ends_at_ms: now_ms.saturating_add(state.life_ms),
            });
        }
        self.waiting = None;
        self.admitted.push(Admitted { order: mail.order, at_ms: now_ms, repeat });
        let beyond = self.admitted.len().saturating_sub(ADMITTED_MAX);
        self.admitted.drain(..beyond);
        Verdict::Send { repeat }
    }

    /// How long the record is needed, in milliseconds.
    pub(crate) fn life_ms(&self, now_ms: u64, quota: &Quota) -> u64 {
        let link = self.mailed.map_or(0, |mailed| mailed.ends_at_ms);
        let buckets = self.full_at_ms.max(self.unlinked_full_at_ms);
        // A waiting mail is retried when the bucket has one more; a retry may also come later.
        buckets.max(link).saturating_sub(now_ms).saturating_add(quota.interval_ms)
    }

    fn beyond(&mut self, order: Uuid, wait_ms: u64, overflow: Overflow) -> Verdict {
        match overflow {
            Overflow::Drop => Verdict::Never,
            Overflow::Wait => Verdict::Later(wait_ms),
            Overflow::Coalesce => {
                if *self.waiting.get_or_insert(order) == order {
                    Verdict::Later(wait_ms)
                } else {
                    Verdict::Never
                }
            }
        }
    }

    /// The serial of the link in the mailbox, if it is valid at least until the next mail may be sent.
    fn good_link(&self, state: &ResetState, now_ms: u64, quota: &Quota) -> Option<Uuid> {
        let mailed = self.mailed?;
        let lasts = mailed.ends_at_ms > now_ms.saturating_add(quota.interval_ms);
        let is_good = state.serial == Some(mailed.serial) && state.bound_to == mailed.bound_to;
        (lasts && is_good).then_some(mailed.serial)
    }
}

impl Quota {
    /// How long until the bucket has a mail, given when it will be full; 0 if it has one.
    fn wait_ms(&self, full_at_ms: u64, now_ms: u64) -> u64 {
        let missing_ms = self.clamp(full_at_ms, now_ms).saturating_sub(now_ms);
        let may_miss_ms = u64::from(self.burst.saturating_sub(1)).saturating_mul(self.interval_ms);
        missing_ms.saturating_sub(may_miss_ms)
    }

    /// When the bucket will be full after one more mail was drawn.
    fn draw(&self, full_at_ms: u64, now_ms: u64) -> u64 {
        let full_at_ms = self.clamp(full_at_ms, now_ms).max(now_ms);
        self.clamp(full_at_ms.saturating_add(self.interval_ms), now_ms)
    }

    /// A bucket is never emptier than empty, whatever another machine's clock said.
    fn clamp(&self, full_at_ms: u64, now_ms: u64) -> u64 {
        let whole_ms = u64::from(self.burst).saturating_mul(self.interval_ms);
        full_at_ms.min(now_ms.saturating_add(whole_ms))
    }
}

#[cfg(test)]
mod tests;
