//! How many mails one address gets: pure decisions over one small record per address and kind of mail, with the
//! time as data.
//!
//! Every kind has a bucket of its own, so that no kind of mail can use up what another one needs. A bucket holds a
//! few mails and fills again one by one. What a mail does that comes when its bucket is empty depends on its kind:
//! one that its reader can ask for again is dropped, a notice waits for its turn and tells of everything that
//! happened until then.
//!
//! # Resets
//! Anybody may ask for a reset of any address, so their cap must not keep the owner out. It is built such that the
//! owner has a usable link at any time, whatever others ask for:
//! - As long as a good link is in the mailbox, requests draw from the bucket. The last mail in it repeats the good
//!   link with a new end instead of replacing it, so a flood of requests never voids a link that was mailed.
//! - When no good link is in the mailbox (it was used, it ends soon, the password changed), a request draws from a
//!   second bucket, which nobody can empty without using links.
//!
//! A refused request therefore always means that a good link was mailed less than [`Quota::interval_ms`] ago.

use events::Position;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Mails remembered as let through, so that one that is tried again is not counted again.
const ADMITTED_MAX: usize = 16;

/// What happens to a mail whose bucket is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Overflow {
    /// It is not sent.
    Drop,
    /// One waits for its turn and stands for all that come meanwhile.
    Coalesce,
    /// Each waits for its turn.
    Wait,
}

/// The bucket of one kind of mail to one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Quota {
    /// Mails that it holds.
    pub burst: u32,
    /// Time in which one more comes in, in milliseconds.
    pub interval_ms: u64,
    /// What happens beyond it.
    pub overflow: Overflow,
}

/// A mail that is to be sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidate {
    /// Its order.
    pub order: Uuid,
    /// When it was ordered.
    pub ordered_at_ms: u64,
    /// For a reset, what the log says about its link.
    pub reset: Option<ResetState>,
}

/// What the log says about the password link of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ResetState {
    /// The serial of the good link, if there is one.
    pub serial: Option<Uuid>,
    /// The position that a link is bound to: a later one voids it.
    pub bound_to: Position,
    /// Life of a link, in milliseconds.
    pub life_ms: u64,
}

/// Whether a mail may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It may.
    Send {
        /// The serial of the link to mail once more, instead of a new one.
        repeat: Option<Uuid>,
    },
    /// Not before so many milliseconds.
    Later(u64),
    /// Not at all.
    Never,
}

/// What one address got of one kind of mail.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Sent {
    /// When the bucket is full again.
    full_at_ms: u64,
    /// The same for the bucket of resets that find no good link in the mailbox.
    #[serde(default)]
    unlinked_full_at_ms: u64,
    /// The mails that were let through last.
    #[serde(default)]
    admitted: Vec<Admitted>,
    /// The order that waits for its turn.
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
    /// Decides about a mail and counts it. The same mail again gets the same answer and is counted once.
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

    /// How long the record has something to say, in milliseconds.
    pub(crate) fn life_ms(&self, now_ms: u64, quota: &Quota) -> u64 {
        let link = self.mailed.map_or(0, |mailed| mailed.ends_at_ms);
        let buckets = self.full_at_ms.max(self.unlinked_full_at_ms);
        // A mail that waits comes again when the bucket has one more; a mail that is tried again may come later.
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

    /// The serial of the link in the mailbox, if it is good for long enough: until the next mail may go.
    fn good_link(&self, state: &ResetState, now_ms: u64, quota: &Quota) -> Option<Uuid> {
        let mailed = self.mailed?;
        let lasts = mailed.ends_at_ms > now_ms.saturating_add(quota.interval_ms);
        let is_good = state.serial == Some(mailed.serial) && state.bound_to == mailed.bound_to;
        (lasts && is_good).then_some(mailed.serial)
    }
}

impl Quota {
    /// How long until the bucket has a mail, given when it will be full; 0 when it has one.
    fn wait_ms(&self, full_at_ms: u64, now_ms: u64) -> u64 {
        let missing_ms = self.clamp(full_at_ms, now_ms).saturating_sub(now_ms);
        let may_miss_ms = u64::from(self.burst.saturating_sub(1)).saturating_mul(self.interval_ms);
        missing_ms.saturating_sub(may_miss_ms)
    }

    /// When the bucket will be full after one more mail was taken out.
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
