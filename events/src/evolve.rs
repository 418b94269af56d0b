//! Turning facts into events, the same for every type of aggregate.

use std::fmt::Debug;

use uuid::Uuid;

use crate::{Actor, CommandId, Envelope, Fact, Timestamp};

/// A fact that cannot follow the state that it was applied to: the log is damaged or the reader too old.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{fact} cannot follow {state}")]
pub struct FoldError {
    /// The wire type of the fact.
    pub fact: &'static str,
    /// The state that it was applied to.
    pub state: &'static str,
}

/// A fact that can be applied to the state of its aggregate.
pub trait Evolve: Fact {
    /// The id of an aggregate.
    type Id: Copy + Debug + Send + Sync + 'static;

    /// The state after the fact, given the state before or its absence. Pure: the time of the event is data.
    ///
    /// # Errors
    /// [`FoldError`] if it cannot follow this state. A reader must stop there, because skipping would lead to a state
    /// that no decision explains.
    /// that nobody decided.
    fn evolve(
        &self,
        before: Option<Self::After>,
        id: Self::Id,
        time: Timestamp,
    ) -> Result<Self::After, FoldError>;
}

/// The origin of a command, which goes into every event that it causes.
#[derive(Debug, Clone)]
pub struct Origin {
    /// Who sent it.
    pub actor: Actor,
    /// The command's id.
    pub command_id: CommandId,
    /// The time of the decision.
    pub time: Timestamp,
    /// The caller's request id.
    pub correlation_id: Option<String>,
    /// The event that it reacts to.
    pub causation_id: Option<String>,
    /// W3C trace context.
    pub traceparent: Option<String>,
}

/// Events, and the state after the last one.
pub type Recorded<F> = (Vec<Envelope<F>>, Option<<F as Fact>::After>);

/// Turns facts into events, each with the state after it, and returns the state after the last one. Ids are data.
///
/// # Errors
/// [`FoldError`]: the decision cannot follow the state that it was based on.
pub fn record<F: Evolve>(
    id: F::Id,
    before: Option<F::After>,
    facts: Vec<F>,
    origin: &Origin,
    mut ids: impl FnMut() -> Uuid,
) -> Result<Recorded<F>, FoldError> {
    let mut state = before;
    let mut events = Vec::with_capacity(facts.len());
    for fact in facts {
        let after = fact.evolve(state, id, origin.time)?;
        state = Some(after.clone());
        events.push(Envelope {
            id: ids(),
            time: origin.time,
            actor: origin.actor,
            command_id: origin.command_id,
            correlation_id: origin.correlation_id.clone(),
            causation_id: origin.causation_id.clone(),
            traceparent: origin.traceparent.clone(),
            fact,
            after,
        });
    }
    Ok((events, state))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Metadata, Snapshot, UserFact, UserId};

    #[test]
    fn recorded_events_carry_the_state_after_each() {
        let user = UserId::from_uuid(Uuid::from_u128(9));
        let origin = Origin {
            actor: Actor::System,
            command_id: CommandId::from_uuid(Uuid::from_u128(1)),
            time: Timestamp::from_unix_seconds(1_800_000_000).unwrap(),
            correlation_id: None,
            causation_id: Some("cause".to_owned()),
            traceparent: None,
        };
        let registered = UserFact::Registered {
            email: "ada@example.com".to_owned(),
            email_verified: false,
            full_name: None,
            roles: Vec::new(),
            metadata: Metadata::new(),
            imported: None,
        };
        let mut n = 1_u128;
        let mut ids = || {
            n += 1;
            Uuid::from_u128(n)
        };
        let facts = vec![registered, UserFact::Disabled];
        let (events, state) = record(user, None, facts, &origin, &mut ids).unwrap();
        let revisions: Vec<u64> = events.iter().map(|e| e.revision().0).collect();
        assert_eq!(revisions, [1, 2]);
        assert_eq!(state.as_ref(), events.last().map(|event| &event.after));
        assert_ne!(events[0].id, events[1].id);
        assert_eq!(events[1].causation_id.as_deref(), Some("cause"));

        let gone = Snapshot::Deleted(crate::DeletedUser {
            id: user,
            revision: crate::Revision(3),
            deleted_at: origin.time,
        });
        let refused = record(user, Some(gone), vec![UserFact::Enabled], &origin, &mut ids);
        assert_eq!(refused, Err(FoldError { fact: "user.enabled.v1", state: "deletion" }));
    }
}
