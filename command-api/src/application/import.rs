//! Import: many users from another system, each decided alone and many of them stored together.

use std::collections::HashSet;

use events::{
    EmailAddress, Metadata, Origin, Position, ROLE_ADMIN, Timestamp, User, UserId, UserState,
};
use futures::stream::{self, StreamExt};
use service_kit::ambient;
use service_kit::event_log::Guard;

use super::rights::Rights;
use super::users::decided;
use super::{ATTEMPTS_MAX, CommandError, Request, Users, settled};
use crate::domain::{Command, FullName, Register, Roles};
pub use crate::ports::HashGiven;
use crate::ports::{self, ClaimChange, CredentialChange, ImportOutcome, KeptImport, PasswordHash};

/// Users stored with one append: each takes up to three messages, and an append up to a thousand.
const TOGETHER_MAX: usize = 300;
/// Look-ups under way at once.
const LOOK_UPS_MAX: usize = 32;

/// A user to bring along. What is `None` was not said.
#[derive(Debug, Clone)]
pub struct Newcomer {
    /// The address.
    pub email: EmailAddress,
    /// Name to show.
    pub full_name: Option<Option<FullName>>,
    /// All roles.
    pub roles: Option<Roles>,
    /// Free data.
    pub metadata: Option<Metadata>,
    /// Whether the address counts as verified.
    pub email_verified: Option<bool>,
    /// A hash that another system made, checked to be one that verifies here.
    pub password_hash: Option<PasswordHash>,
    /// When the user came into being in the system before.
    pub created_at: Option<Timestamp>,
}

/// What became of one newcomer.
#[derive(Debug)]
pub enum Fate {
    /// A user was made.
    Created(UserId),
    /// The user is there already, just so; with what became of the password hash of the line.
    Unchanged(UserId, HashGiven),
    /// Nothing was made, or nobody can say.
    Refused(CommandError),
}

/// What became of all, in their order, and the position that the views must have to show it.
#[derive(Debug)]
pub struct Imported {
    /// One for each newcomer.
    pub fates: Vec<Fate>,
    /// The newest of what was made or found.
    pub position: Position,
}

impl Imported {
    /// The answer for a repetition; `None` while there are lines that have to be sent again.
    fn kept(&self) -> Option<KeptImport> {
        let outcome = |fate: &Fate| match fate {
            Fate::Created(user) => Some(ImportOutcome::Created(*user)),
            Fate::Unchanged(user, hash) => Some(ImportOutcome::Unchanged(*user, *hash)),
            Fate::Refused(CommandError::EmailTaken) => Some(ImportOutcome::Taken),
            Fate::Refused(_) => None,
        };
        let outcomes = self.fates.iter().map(outcome).collect::<Option<_>>()?;
        Some(KeptImport { outcomes, shown_at: self.position })
    }
}

impl From<KeptImport> for Imported {
    fn from(kept: KeptImport) -> Self {
        let fate = |outcome| match outcome {
            ImportOutcome::Created(user) => Fate::Created(user),
            ImportOutcome::Unchanged(user, hash) => Fate::Unchanged(user, hash),
            ImportOutcome::Taken => Fate::Refused(CommandError::EmailTaken),
        };
        Self { fates: kept.outcomes.into_iter().map(fate).collect(), position: kept.shown_at }
    }
}

impl Users {
    /// Makes users of newcomers, as an administrator. The same ones again change nothing.
    pub async fn import(
        &self,
        newcomers: Vec<Newcomer>,
        request: Request,
    ) -> Result<Imported, CommandError> {
        self.run_detached(|users| async move {
            if users.rights(request.actor).await? != Rights::Administrator {
                return Err(CommandError::Forbidden);
            }
            let _running = users.in_flight.start(request.key.as_ref())?;
            if let Some(key) = &request.key
                && let Some(kept) = users.log().recorded_import(key).await?
            {
                return Ok(kept.into());
            }
            let origin = request.origin();
            let mut imported =
                Imported { fates: Vec::with_capacity(newcomers.len()), position: Position(0) };
            for together in newcomers.chunks(TOGETHER_MAX) {
                users.import_together(together, &origin, &mut imported).await;
            }
            if let (Some(key), Some(kept)) = (&request.key, imported.kept())
                && let Err(error) = settled(users.log().record_import(key, &kept).await)
            {
                tracing::warn!(%error, "the answer of an import is not recorded; its repetition decides anew");
            }
            Ok(imported)
        })
        .await
    }

    /// Decides all of a few newcomers. Whoever wants what another one before has to be decided on first
    /// waits for the next round.
    async fn import_together(
        &self,
        newcomers: &[Newcomer],
        origin: &Origin,
        imported: &mut Imported,
    ) {
        let mut fates: Vec<Option<Fate>> = newcomers.iter().map(|_| None).collect();
        let mut conflicts = 0;
        while conflicts < ATTEMPTS_MAX {
            let mut taken = HashSet::new();
            let (round, open): (Vec<_>, Vec<_>) = newcomers
                .iter()
                .zip(&mut fates)
                .filter(|(_, fate)| fate.is_none())
                .filter(|(newcomer, _)| newcomer.wants().into_iter().all(|it| taken.insert(it)))
                .unzip();
            if round.is_empty() {
                break;
            }
            if !self.import_round(&round, open, origin, &mut imported.position).await {
                conflicts += 1;
            }
        }
        let given_up = || Fate::Refused(CommandError::overloaded());
        imported.fates.extend(fates.into_iter().map(|fate| fate.unwrap_or_else(given_up)));
    }

    /// Decides newcomers that are not in each other's way; `false` when somebody else was, and those who
    /// have no fate yet have to be looked at again.
    async fn import_round(
        &self,
        round: &[&Newcomer],
        open: Vec<&mut Option<Fate>>,
        origin: &Origin,
        position: &mut Position,
    ) -> bool {
        let look_ups: Vec<_> = round.iter().map(|one| self.look_up(one, origin)).collect();
        let decisions: Vec<_> = stream::iter(look_ups).buffered(LOOK_UPS_MAX).collect().await;
        let (mut changes, mut waiting) = (Vec::new(), Vec::new());
        for (decision, fate) in decisions.into_iter().zip(open) {
            match decision {
                Ok(Decision::Create(change)) => {
                    waiting.push((change.user, fate));
                    changes.push(*change);
                }
                Ok(Decision::Unchanged(user, at, hash)) => {
                    *position = at.max(*position);
                    *fate = Some(Fate::Unchanged(user, hash));
                }
                Err(error) => *fate = Some(Fate::Refused(error)),
            }
        }
        if changes.is_empty() {
            return true;
        }
        match settled(self.log().append_all(&changes).await) {
            Ok(Some(at)) => {
                *position = at.max(*position);
                waiting.into_iter().for_each(|(user, fate)| *fate = Some(Fate::Created(user)));
                true
            }
            Ok(None) => false,
            Err(error) => {
                let refused = || Some(Fate::Refused(error.clone().into()));
                waiting.into_iter().for_each(|(_, fate)| *fate = refused());
                true
            }
        }
    }

    async fn look_up(
        &self,
        newcomer: &Newcomer,
        origin: &Origin,
    ) -> Result<Decision, CommandError> {
        let claim = self.claim_on(&newcomer.email).await?;
        if let Some(holder) = claim.value {
            let loaded = self.log().load(holder).await?;
            return match &loaded.value {
                UserState::Present(user) if newcomer.is(user) => {
                    let hash = match &newcomer.password_hash {
                        None => HashGiven::Same,
                        Some(given) => match self.log().credential(holder).await?.value {
                            Some(stored) if stored == *given => HashGiven::Same,
                            Some(_) => HashGiven::Kept,
                            None => HashGiven::Missing,
                        },
                    };
                    Ok(Decision::Unchanged(holder, loaded.position, hash))
                }
                UserState::Present(_) | UserState::Absent | UserState::Deleted(_) => {
                    Err(CommandError::EmailTaken)
                }
            };
        }
        let user = UserId::from_uuid(ambient::new_uuid());
        let command = Command::Register(newcomer.registration(origin.time));
        let (events, state) = decided(user, &UserState::Absent, &command, origin)?;
        let mut change = ports::Change::of(user, Guard::absent());
        change.claims = vec![ClaimChange::Hold(newcomer.email.clone(), claim.guard)];
        change.credential =
            newcomer.password_hash.clone().map(|hash| CredentialChange::Set(hash, Guard::absent()));
        change.admins = self.admins_after(user, &UserState::Absent, &state).await?;
        change.events = events;
        Ok(Decision::Create(Box::new(change)))
    }
}

enum Decision {
    Create(Box<ports::Change>),
    Unchanged(UserId, Position, HashGiven),
}

impl Newcomer {
    /// What only one of a round can have.
    fn wants(&self) -> Vec<&str> {
        let mut things = vec![self.email.canonical()];
        if self.roles.as_ref().is_some_and(|roles| roles.contain(ROLE_ADMIN)) {
            // No address looks like this.
            things.push("the record of administrators");
        }
        things
    }

    fn registration(&self, now: Timestamp) -> Register {
        Register {
            email: self.email.clone(),
            full_name: self.full_name.clone().flatten(),
            metadata: self.metadata.clone().unwrap_or_default(),
            roles: self.roles.clone(),
            email_verified: self.email_verified.unwrap_or(false),
            imported: Some(self.created_at.unwrap_or(now)),
        }
    }

    /// Whether a user is as the newcomer would be, in everything that was said but the password: its hash is replaced
    /// at the first login.
    fn is(&self, user: &User) -> bool {
        let name = self.full_name.as_ref().map(|name| name.as_ref().map(FullName::as_str));
        // Versions before stored an address as it was typed, composed or not.
        EmailAddress::parse(&user.email)
            .is_ok_and(|stored| stored.as_given() == self.email.as_given())
            && self.roles.as_ref().is_none_or(|given| given.as_slice() == user.roles)
            && name.is_none_or(|given| given == user.full_name.as_deref())
            && self.metadata.as_ref().is_none_or(|given| *given == user.metadata)
            && self.email_verified.is_none_or(|given| given == user.email_verified)
            && self.created_at.is_none_or(|given| given == user.created_at)
    }
}
