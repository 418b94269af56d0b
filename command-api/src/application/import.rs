//! Import: users from another system, each decided on its own and many stored together.

use std::collections::HashSet;

use events::{
    EmailAddress, Metadata, Origin, Position, ROLE_ADMIN, Timestamp, User, UserId, UserState,
};
use futures::stream::{self, StreamExt};
use service_kit::ambient;
use service_kit::commands::{ATTEMPTS_MAX, Loaded, settled};

use super::authority::Authority;
use super::users::decided;
use super::{CommandError, Request, Users};
use crate::domain::{Command, FullName, Register, Roles};
pub use crate::ports::HashGiven;
use crate::ports::{ImportOutcome, KeptImport, PasswordHash, UserChange};

/// Users stored with one append: each needs up to three messages, and an append holds up to a thousand.
const BATCH_USERS_MAX: usize = 300;
/// Concurrent look-ups.
const LOOK_UPS_MAX: usize = 32;

/// A user to import. A member that was not given is `None`.
#[derive(Debug, Clone)]
pub struct UserToImport {
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
    /// A hash made by another system, checked to be verifiable here.
    pub password_hash: Option<PasswordHash>,
    /// When the user was created in the other system.
    pub created_at: Option<Timestamp>,
}

/// The results of an import, in the order of its users.
#[derive(Debug)]
pub struct Imported {
    /// One for each user. After an error nothing was created, or the outcome is unknown.
    pub outcomes: Vec<Result<ImportOutcome, CommandError>>,
    /// The position at which views show all of it.
    pub position: Position,
}

impl Imported {
    /// The answer for a repetition; `None` while there are lines that have to be sent again.
    fn kept(&self) -> Option<KeptImport> {
        let outcome = |outcome: &Result<_, _>| outcome.as_ref().ok().copied();
        let outcomes = self.outcomes.iter().map(outcome).collect::<Option<_>>()?;
        Some(KeptImport { outcomes, shown_at: self.position })
    }
}

impl From<KeptImport> for Imported {
    fn from(kept: KeptImport) -> Self {
        Self { outcomes: kept.outcomes.into_iter().map(Ok).collect(), position: kept.shown_at }
    }
}

impl Users {
    /// Creates users, as an administrator. Importing the same users again changes nothing.
    pub async fn import(
        &self,
        users_to_import: Vec<UserToImport>,
        request: Request,
    ) -> Result<Imported, CommandError> {
        self.run_detached(|users| async move {
            if users.authority(request.actor).await? != Authority::Administrator {
                return Err(CommandError::Forbidden);
            }
            let _running = users.deps.runner.start(request.key.as_ref())?;
            if let Some(key) = &request.key
                && let Some(kept) = users.log().recorded_import(key).await?
            {
                return Ok(kept.into());
            }
            let origin = request.origin();
            let outcomes = Vec::with_capacity(users_to_import.len());
            let mut imported = Imported { outcomes, position: Position(0) };
            for batch in users_to_import.chunks(BATCH_USERS_MAX) {
                users.import_batch(batch, &origin, &mut imported).await;
            }
            if let (Some(key), Some(kept)) = (&request.key, imported.kept())
                && let Err(error) = settled(users.log().record_import(key, &kept).await)
            {
                tracing::warn!(%error, "cannot record the answer of an import; a repetition decides again");
            }
            Ok(imported)
        })
        .await
    }

    /// Imports a batch in rounds: a user who conflicts with another one of the batch waits for the next round.
    async fn import_batch(&self, batch: &[UserToImport], origin: &Origin, imported: &mut Imported) {
        let mut outcomes: Vec<Option<_>> = batch.iter().map(|_| None).collect();
        let mut conflicts = 0;
        while conflicts < ATTEMPTS_MAX {
            let mut taken = HashSet::new();
            let (round, open): (Vec<_>, Vec<_>) = batch
                .iter()
                .zip(&mut outcomes)
                .filter(|(_, outcome)| outcome.is_none())
                .filter(|(user, _)| user.exclusive().into_iter().all(|it| taken.insert(it)))
                .unzip();
            if round.is_empty() {
                break;
            }
            if !self.import_round(&round, open, origin, &mut imported.position).await {
                conflicts += 1;
            }
        }
        let given_up = || Err(CommandError::overloaded());
        imported.outcomes.extend(outcomes.into_iter().map(|it| it.unwrap_or_else(given_up)));
    }

    /// Imports users that do not conflict with each other. `false` after a conflict with another command: the users
    /// without an outcome have to be decided again.
    async fn import_round(
        &self,
        round: &[&UserToImport],
        open: Vec<&mut Option<Result<ImportOutcome, CommandError>>>,
        origin: &Origin,
        position: &mut Position,
    ) -> bool {
        let look_ups: Vec<_> = round.iter().map(|one| self.look_up(one, origin)).collect();
        let decisions: Vec<_> = stream::iter(look_ups).buffered(LOOK_UPS_MAX).collect().await;
        let (mut changes, mut waiting) = (Vec::new(), Vec::new());
        for (decision, outcome) in decisions.into_iter().zip(open) {
            match decision {
                Ok(Decision::Create(change)) => {
                    waiting.push((change.id, outcome));
                    changes.push(*change);
                }
                Ok(Decision::Existing(existing, at)) => {
                    *position = at.max(*position);
                    *outcome = Some(Ok(existing));
                }
                Err(error) => *outcome = Some(Err(error)),
            }
        }
        if changes.is_empty() {
            return true;
        }
        match settled(self.log().append_all(&changes).await) {
            Ok(Some(at)) => {
                *position = at.max(*position);
                for (user, outcome) in waiting {
                    *outcome = Some(Ok(ImportOutcome::Created(user)));
                }
                true
            }
            Ok(None) => false,
            Err(error) => {
                for (_, outcome) in waiting {
                    *outcome = Some(Err(error.clone().into()));
                }
                true
            }
        }
    }

    async fn look_up(
        &self,
        given: &UserToImport,
        origin: &Origin,
    ) -> Result<Decision, CommandError> {
        let claim = self.claim_on(&given.email).await?;
        if let Some(holder) = claim.value {
            let loaded = self.log().load(holder).await?;
            return match &loaded.value {
                UserState::Present(user) if given.equals(user) => {
                    let hash = match &given.password_hash {
                        None => HashGiven::Same,
                        Some(hash) => match self.log().credential(holder).await?.value {
                            Some(stored) if stored == *hash => HashGiven::Same,
                            Some(_) => HashGiven::Kept,
                            None => HashGiven::Missing,
                        },
                    };
                    let existing = ImportOutcome::Unchanged(holder, hash);
                    Ok(Decision::Existing(existing, loaded.position))
                }
                UserState::Present(_) | UserState::Absent | UserState::Deleted(_) => {
                    Ok(Decision::Existing(ImportOutcome::Taken, Position(0)))
                }
            };
        }
        let user = UserId::from_uuid(ambient::new_uuid());
        let command = Command::Register(given.registration(origin.time));
        let change = decided(user, Loaded::empty(UserState::Absent), &command, origin)?;
        let hash = given.password_hash.clone();
        let change = self.with_registration(change, &given.email, claim.guard, hash).await?;
        Ok(Decision::Create(Box::new(change)))
    }
}

enum Decision {
    Create(Box<UserChange>),
    /// Nothing is created; the position is that of the existing user's last event.
    Existing(ImportOutcome, Position),
}

impl UserToImport {
    /// What only one user of a round can have.
    fn exclusive(&self) -> Vec<&str> {
        let mut exclusive = vec![self.email.canonical()];
        if self.roles.as_ref().is_some_and(|roles| roles.contain(ROLE_ADMIN)) {
            // No address looks like this.
            exclusive.push("the record of administrators");
        }
        exclusive
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

    /// Whether an existing user has the given values. The password hash is not compared: it is replaced at the first
    /// login.
    fn equals(&self, user: &User) -> bool {
        let name = self.full_name.as_ref().map(|name| name.as_ref().map(FullName::as_str));
        // Earlier versions stored an address as it was typed, composed or not.
        EmailAddress::parse(&user.email)
            .is_ok_and(|stored| stored.as_given() == self.email.as_given())
            && self.roles.as_ref().is_none_or(|given| given.as_slice() == user.roles)
            && name.is_none_or(|given| given == user.full_name.as_deref())
            && self.metadata.as_ref().is_none_or(|given| *given == user.metadata)
            && self.email_verified.is_none_or(|given| given == user.email_verified)
            && self.created_at.is_none_or(|given| given == user.created_at)
    }
}
