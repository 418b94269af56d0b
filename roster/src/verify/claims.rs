//! The claims on addresses, and the record of the administrators.

use std::collections::BTreeSet;

use command_api::Admins;
use events::{EmailClaim, Position, ROLE_ADMIN, Snapshot, UserId, UserState, subjects};
use serde::Deserialize;
use service_kit::event_log::Followed;
use views::email_key;

use super::Verifier;
use super::report::{Difference, Place};

/// Digits of a key that it is told by in memory.
const KEY_DIGITS: usize = 32;

#[derive(Deserialize)]
struct Holders {
    holders: BTreeSet<UserId>,
}

impl Verifier {
    /// Takes in a claim of the log.
    pub(super) fn claim(&mut self, key: &str, message: &Followed) {
        let (short, claim) = (short(key), serde_json::from_slice::<EmailClaim>(&message.payload));
        let (Some(key), Ok(claim)) = (short, claim) else {
            let unreadable = Difference::new(Place::Claim, "a claim cannot be read");
            self.report.add(unreadable.at(message.position));
            return;
        };
        match claim.holder() {
            Some(user) if self.is_checked(user) => {
                self.claims.insert(key, (user, message.position))
            }
            Some(_) | None => self.claims.remove(&key),
        };
    }

    /// Takes in a record of the administrators.
    pub(super) fn admins(&mut self, message: &Followed) {
        if message.subject == subjects::role_holders(ROLE_ADMIN) {
            self.admins_are(&message.payload, message.position);
        }
    }

    fn admins_are(&mut self, payload: &[u8], position: Position) {
        match serde_json::from_slice::<Holders>(payload) {
            Ok(Holders { holders }) => self.admins = holders,
            Err(_) => {
                let unreadable = Difference::new(Place::Admins, "the record cannot be read");
                self.report.add(unreadable.at(position));
            }
        }
    }

    /// Asks for the claim on the address of one user and for the administrators, without reading all claims.
    pub(super) async fn claims_of(&mut self, user: UserId) -> anyhow::Result<()> {
        let log = &self.streams.users;
        let admins = log.last(&subjects::role_holders(ROLE_ADMIN)).await?;
        let known = self.known.get(&user).and_then(|known| known.after.as_ref());
        if let Some(Snapshot::Present(state)) = known {
            let key = self.claim_key.mac_hex(&[email_key(&state.email).as_bytes()]);
            let stored = log.last(&subjects::email_claim(&key)).await?;
            let claim = stored.and_then(|stored| {
                let claim = serde_json::from_slice::<EmailClaim>(&stored.payload).ok()?;
                Some((short(&key)?, (claim.holder()?, stored.position)))
            });
            self.claims.extend(claim);
        }
        if let Some(admins) = admins {
            self.admins_are(&admins.payload, admins.position);
        }
        Ok(())
    }

    /// Compares both with the users.
    pub(super) async fn compare_claims(&mut self) -> anyhow::Result<()> {
        let mut claims = std::mem::take(&mut self.claims);
        self.report.looked.claims = claims.len() as u64;
        let mut lost = Vec::new();
        let mut admins = BTreeSet::new();
        for (user, known) in &self.known {
            let Some(Snapshot::Present(state)) = &known.after else { continue };
            if Admins::counts(&UserState::Present(state.clone())) {
                admins.insert(*user);
            }
            let key = self.claim_key.mac_hex(&[email_key(&state.email).as_bytes()]);
            match short(&key).and_then(|key| claims.remove(&key)) {
                Some((holder, _)) if holder == *user => {}
                Some((_, position)) => {
                    let what = "somebody else holds the claim on the address";
                    lost.push((key, Difference::new(Place::Claim, what).of(*user).at(position)));
                }
                None => {
                    let what = "the user does not hold the claim on the address";
                    lost.push((key, Difference::new(Place::Claim, what).of(*user)));
                }
            }
        }
        for (key, difference) in lost {
            // A claim that was replaced since may have been erased before it was read.
            let subject = subjects::email_claim(&key);
            let is_newer = !self.report.is_full()
                && self.streams.users.next(&subject, self.edge.records).await?.is_some();
            if is_newer {
                self.report.changed_meanwhile += 1;
            } else {
                self.report.add(difference);
            }
        }
        for (user, position) in claims.into_values() {
            let what = "a claim is held by a user who has not that address";
            // Deleted since, the user may be erased already, and the claim was read as it was before.
            self.differs(user, Difference::new(Place::Claim, what).of(user).at(position)).await?;
        }
        let named: BTreeSet<UserId> =
            self.admins.iter().copied().filter(|user| self.is_checked(*user)).collect();
        for user in admins.difference(&named) {
            let what = "an administrator is not named";
            self.differs(*user, Difference::new(Place::Admins, what).of(*user)).await?;
        }
        for user in named.difference(&admins) {
            let what = "somebody is named who is no active administrator";
            self.differs(*user, Difference::new(Place::Admins, what).of(*user)).await?;
        }
        Ok(())
    }
}

/// Half of a keyed hash is enough to tell it from all others.
fn short(key: &str) -> Option<u128> {
    u128::from_str_radix(key.get(..KEY_DIGITS)?, 16).ok()
}
