//! Generations of the views: which exist, which one is live, and which ones an announced position holds for.
//!
//! The views of users (documents and history) and those of sessions are stored in collections with a number. In each
//! set one number is live: queries read it. There may be one standby generation: a new one that is being filled, or the
//! one that was live before. One document records this, and every change of it is guarded by its version (ADR 16).

use std::fmt;

use mongodb::Collection;
use mongodb::bson::{Document, doc};
use mongodb::error::{Error, ErrorKind, WriteFailure};
use mongodb::options::{CollectionOptions, ReadConcern, WriteConcern};
use serde::{Deserialize, Serialize};

use events::Position;
use view_kit::CHECKPOINTS;

use crate::{
    Views, history_collection, logins_checkpoint, sessions_checkpoint, sessions_collection,
    states_begun_checkpoint, states_checkpoint, users_checkpoint, users_collection,
};

/// The document, among the checkpoints.
const ID: &str = "generations";
/// The generation of a database without such a document.
const FIRST: u32 = 1;
/// The database's code for an `_id` that exists.
const DUPLICATE_KEY: i32 = 11_000;

/// A set of views that has generations of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ViewSet {
    /// Users with their history.
    Users,
    /// Sessions.
    Sessions,
}

impl ViewSet {
    /// Both sets.
    pub const ALL: [Self; 2] = [Self::Users, Self::Sessions];
}

impl fmt::Display for ViewSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Users => "users",
            Self::Sessions => "sessions",
        })
    }
}

/// The phase of a standby generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// New, and catching up with the end of the log. No command waits for it.
    Filling,
    /// About to become live: announced positions hold for it, too.
    Joining,
    /// It was live until now, and some queries may still read it: announced positions hold for it, too.
    Leaving,
    /// It was live once. It is kept up to date for a rollback, and no command waits for it.
    Old,
}

impl Phase {
    /// Whether an announced position holds for it.
    #[must_use]
    pub const fn is_waited_for(self) -> bool {
        matches!(self, Self::Joining | Self::Leaving)
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Filling => "filling",
            Self::Joining => "joining",
            Self::Leaving => "leaving",
            Self::Old => "old",
        })
    }
}

/// A standby generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standby {
    /// Its number.
    pub number: u32,
    /// Its phase.
    pub phase: Phase,
}

/// The generations of one set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewSetState {
    /// The one that queries read.
    pub live: u32,
    /// The standby generation, if there is one.
    #[serde(rename = "beside")]
    pub standby: Option<Standby>,
    /// The next number. Numbers are never reused, so a projector with a stale view of the generations can only write to
    /// collections that nobody reads.
    next: u32,
}

impl Default for ViewSetState {
    fn default() -> Self {
        Self { live: FIRST, standby: None, next: FIRST + 1 }
    }
}

impl ViewSetState {
    /// The numbers of all generations that exist.
    pub fn all(&self) -> impl Iterator<Item = u32> {
        [Some(self.live), self.standby.map(|standby| standby.number)].into_iter().flatten()
    }

    /// The numbers for which announced positions hold.
    pub fn waited_for(&self) -> impl Iterator<Item = u32> {
        let standby = self.standby.filter(|standby| standby.phase.is_waited_for());
        [Some(self.live), standby.map(|standby| standby.number)].into_iter().flatten()
    }

    /// Whether a number is in a phase.
    #[must_use]
    pub fn is(&self, number: u32, phase: Phase) -> bool {
        self.standby == Some(Standby { number, phase })
    }

    fn was_removed(&self, number: u32) -> bool {
        number < self.next && self.all().all(|there| there != number)
    }
}

/// The generations of both sets.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Generations {
    version: i64,
    users: ViewSetState,
    sessions: ViewSetState,
}

/// A change that the current state does not permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("generation {number} of the {set} is not {wanted}")]
pub struct NotInPhase {
    set: ViewSet,
    number: u32,
    wanted: &'static str,
}

impl Generations {
    /// The number of changes so far.
    #[must_use]
    pub const fn version(&self) -> i64 {
        self.version
    }

    /// The state of one set.
    #[must_use]
    pub const fn state(&self, set: ViewSet) -> &ViewSetState {
        match set {
            ViewSet::Users => &self.users,
            ViewSet::Sessions => &self.sessions,
        }
    }

    const fn state_mut(&mut self, set: ViewSet) -> &mut ViewSetState {
        match set {
            ViewSet::Users => &mut self.users,
            ViewSet::Sessions => &mut self.sessions,
        }
    }

    /// Begins to fill a new generation, and returns its number. The standby generation before it is gone.
    pub fn begin(&mut self, set: ViewSet) -> u32 {
        let state = self.state_mut(set);
        let number = state.next;
        state.next += 1;
        state.standby = Some(Standby { number, phase: Phase::Filling });
        number
    }

    /// Makes a generation join: it is about to become live.
    ///
    /// # Errors
    /// [`NotInPhase`]: it is neither filling nor old.
    pub fn join(&mut self, set: ViewSet, number: u32) -> Result<(), NotInPhase> {
        let state = self.state_mut(set);
        if !state.is(number, Phase::Filling) && !state.is(number, Phase::Old) {
            return Err(NotInPhase { set, number, wanted: "filling or old" });
        }
        state.standby = Some(Standby { number, phase: Phase::Joining });
        Ok(())
    }

    /// Takes a joining generation back, so that no command waits for it. A leaving one stays as it is.
    pub fn step_back(&mut self, set: ViewSet, number: u32) {
        let state = self.state_mut(set);
        if state.is(number, Phase::Joining) {
            let phase = if number > state.live { Phase::Filling } else { Phase::Old };
            state.standby = Some(Standby { number, phase });
        }
    }

    /// Makes a generation live; the one that was live before leaves.
    ///
    /// # Errors
    /// [`NotInPhase`]: it is neither joining nor leaving.
    pub fn switch(&mut self, set: ViewSet, number: u32) -> Result<(), NotInPhase> {
        let state = self.state_mut(set);
        if !state.is(number, Phase::Joining) && !state.is(number, Phase::Leaving) {
            return Err(NotInPhase { set, number, wanted: "joining or leaving" });
        }
        state.standby = Some(Standby { number: state.live, phase: Phase::Leaving });
        state.live = number;
        Ok(())
    }

    /// The generation that was live before is no longer read by anybody.
    ///
    /// # Errors
    /// [`NotInPhase`]: it is not leaving.
    pub fn retire(&mut self, set: ViewSet, number: u32) -> Result<(), NotInPhase> {
        let state = self.state_mut(set);
        if !state.is(number, Phase::Leaving) {
            return Err(NotInPhase { set, number, wanted: "leaving" });
        }
        state.standby = Some(Standby { number, phase: Phase::Old });
        Ok(())
    }

    /// Removes a generation that nobody reads.
    ///
    /// # Errors
    /// [`NotInPhase`]: somebody may read it.
    pub fn remove(&mut self, set: ViewSet, number: u32) -> Result<(), NotInPhase> {
        let state = self.state_mut(set);
        match state.standby {
            Some(beside) if beside.number == number && beside.phase != Phase::Leaving => {
                state.standby = None;
                Ok(())
            }
            _ => Err(NotInPhase { set, number, wanted: "a standby generation" }),
        }
    }
}

/// The set and the number of the generation that a collection belongs to.
#[must_use]
pub fn generation_of(collection: &str) -> Option<(ViewSet, u32)> {
    let (_, number) = collection.rsplit_once('_')?;
    let number = number.parse().ok()?;
    if collection == users_collection(number) || collection == history_collection(number) {
        Some((ViewSet::Users, number))
    } else if collection == sessions_collection(number) {
        Some((ViewSet::Sessions, number))
    } else {
        None
    }
}

impl Views {
    /// Read with the concern `majority` on the primary: after a write with `w: majority`, this read sees every change
    /// that was acknowledged before that write.
    fn known_generations(&self) -> Collection<Generations> {
        let options = CollectionOptions::builder()
            .read_concern(ReadConcern::majority())
            .write_concern(WriteConcern::majority())
            .build();
        self.database().collection_with_options(CHECKPOINTS, options)
    }

    /// Reads the generations.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn generations(&self) -> Result<Generations, Error> {
        Ok(self.known_generations().find_one(doc! {"_id": ID}).await?.unwrap_or_default())
    }

    /// Replaces the generations that were read by new ones; `false` if they were changed in the meantime.
    ///
    /// # Errors
    /// The database does not answer: read them again.
    pub async fn change_generations(
        &self,
        from: &Generations,
        mut to: Generations,
    ) -> Result<bool, Error> {
        to.version = from.version + 1;
        let guard = doc! {"_id": ID, "version": from.version};
        let changed =
            self.known_generations().replace_one(guard, to).upsert(from.version == 0).await;
        match changed {
            Ok(result) => Ok(result.matched_count > 0 || result.upserted_id.is_some()),
            Err(error) if is_duplicate(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The position of users that everything read from now on reflects: the lowest one among the generations that are
    /// read now or will be next.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn users_position(&self) -> Result<Position, Error> {
        self.position_of(ViewSet::Users, users_checkpoint).await
    }

    /// The same for sessions.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn sessions_position(&self) -> Result<Position, Error> {
        self.position_of(ViewSet::Sessions, sessions_checkpoint).await
    }

    async fn position_of(
        &self,
        set: ViewSet,
        checkpoint: fn(u32) -> String,
    ) -> Result<Position, Error> {
        let generations = self.generations().await?;
        let mut lowest = None;
        for number in generations.state(set).waited_for() {
            let position = self.position(&checkpoint(number)).await?;
            lowest = Some(lowest.map_or(position, |lowest: Position| lowest.min(position)));
        }
        Ok(lowest.unwrap_or_default())
    }

    /// Drops leftover collections of removed generations, and returns their names. Anything that a projector with a
    /// stale view has written since is dropped by the next call.
    ///
    /// # Errors
    /// The database does not answer: call again.
    pub async fn sweep(&self) -> Result<Vec<String>, Error> {
        let generations = self.generations().await?;
        let mut dropped = Vec::new();
        for name in self.database().list_collection_names().await? {
            let Some((set, number)) = generation_of(&name) else { continue };
            if !generations.state(set).was_removed(number) {
                continue;
            }
            let checkpoints = match set {
                ViewSet::Users => vec![
                    users_checkpoint(number),
                    states_checkpoint(number),
                    states_begun_checkpoint(number),
                    logins_checkpoint(number),
                ],
                ViewSet::Sessions => vec![sessions_checkpoint(number)],
            };
            self.parked().delete_many(doc! {"checkpoint": {"$in": &checkpoints}}).await?;
            self.checkpoints().delete_many(doc! {"_id": {"$in": checkpoints}}).await?;
            self.database().collection::<Document>(&name).drop().await?;
            dropped.push(name);
        }
        Ok(dropped)
    }
}

fn is_duplicate(error: &Error) -> bool {
    matches!(
        error.kind.as_ref(),
        ErrorKind::Write(WriteFailure::WriteError(refused)) if refused.code == DUPLICATE_KEY
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use mongodb::bson;

    const SET: ViewSet = ViewSet::Users;

    fn waited_for(generations: &Generations) -> Vec<u32> {
        generations.state(SET).waited_for().collect()
    }

    #[test]
    fn a_switch_and_the_way_back() {
        let mut generations = Generations::default();
        assert_eq!(waited_for(&generations), [1]);
        assert_eq!(generations.begin(SET), 2);
        assert_eq!(waited_for(&generations), [1], "no command waits for one that is being filled");
        assert!(generations.switch(SET, 2).is_err(), "nothing was announced for it");
        generations.join(SET, 2).unwrap();
        assert_eq!(waited_for(&generations), [1, 2]);
        generations.step_back(SET, 2);
        assert!(generations.state(SET).is(2, Phase::Filling));
        generations.join(SET, 2).unwrap();
        generations.switch(SET, 2).unwrap();
        assert_eq!(waited_for(&generations), [2, 1], "some still read the one before");
        generations.switch(SET, 1).unwrap();
        generations.switch(SET, 2).unwrap();
        assert!(generations.remove(SET, 1).is_err(), "somebody may read it");
        generations.retire(SET, 1).unwrap();
        assert_eq!(waited_for(&generations), [2]);
        assert_eq!(generations.state(SET).all().collect::<Vec<_>>(), [2, 1]);
        generations.join(SET, 1).unwrap();
        generations.switch(SET, 1).unwrap();
        generations.retire(SET, 2).unwrap();
        assert_eq!(generations.state(SET).live, 1);
        generations.remove(SET, 2).unwrap();
        assert!(generations.remove(SET, 1).is_err(), "it is live");
        assert_eq!(generations.begin(SET), 3, "numbers are never reused");
        assert_eq!(generations.state(ViewSet::Sessions), &ViewSetState::default());
    }

    #[test]
    fn what_was_removed_is_told_from_what_is_to_come() {
        let mut generations = Generations::default();
        generations.begin(SET);
        generations.begin(SET);
        let state = generations.state(SET);
        let removed: Vec<u32> = (0..6).filter(|number| state.was_removed(*number)).collect();
        assert_eq!(removed, [0, 2], "not the live one, nor one of a later version");
    }

    #[test]
    fn a_collection_names_its_generation() {
        for (name, expected) in [
            ("users_1", Some((ViewSet::Users, 1))),
            ("user_history_12", Some((ViewSet::Users, 12))),
            ("sessions_3", Some((ViewSet::Sessions, 3))),
            ("sessions_03", None),
            ("users", None),
            ("users_x", None),
            ("checkpoints", None),
        ] {
            assert_eq!(generation_of(name), expected, "{name}");
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut generations = Generations::default();
        generations.begin(SET);
        generations.join(SET, 2).unwrap();
        let read: Generations =
            bson::deserialize_from_document(bson::serialize_to_document(&generations).unwrap())
                .unwrap();
        assert_eq!(read, generations);
    }
}
