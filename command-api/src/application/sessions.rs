//! Sessions: start, refresh, end.

use std::sync::Arc;

use events::{
    Actor, Cutoff, EndReason, Lineage, LineageRecord, Position, RevocationCause, RevocationReason,
    Session, SessionFact, SessionId, SessionSeed, User, UserId, UserState, record,
};
use service_kit::commands::{Failure, Loaded, settled, until_settled};
use service_kit::security::{Kind, Outcome, SecurityEvent};
use service_kit::{ambient, trace};

use super::authority::Authority;
use super::idempotency::Effect;
use super::{CommandError, Done, RefreshTokens, Request, Users};
use crate::domain::{self, Device, Refresh, Rejection};
use crate::ports::UserChange;
use crate::ports::throttle::{RateKey, UserAction};

/// Draws the seeds of sessions. Seeds are data, like ids.
pub type Seeds = Arc<dyn Fn() -> Result<SessionSeed, String> + Send + Sync>;

/// The result of a login or a refresh.
#[derive(Debug, Clone)]
pub struct Granted {
    /// The present state of the user.
    pub user: User,
    /// The session.
    pub session: Session,
    /// For the access token: the user's last revocation that was known before the decision.
    pub epoch: Position,
    /// The refresh token that is valid now.
    pub refresh_token: String,
    /// Position of the session's last event.
    pub position: Position,
}

/// A user who has proved who they are. Only a proof constructs it, so no session starts without one.
pub(super) struct Proved {
    state: UserState,
    cutoff: Cutoff,
    lineage: Option<Lineage>,
}

impl Proved {
    /// By a secret of the user: `lineage`, `cutoff` and `state` were read before it was compared, in this order. A later
    /// revocation is newer than the epoch of the session, and a later history differs from the session's.
    pub(super) const fn by_secret(
        lineage: Option<Lineage>,
        cutoff: Cutoff,
        state: UserState,
    ) -> Self {
        Self { state, cutoff, lineage }
    }

    /// By having been created by this command: nothing can have been revoked before.
    pub(super) fn by_registration(lineage: Option<Lineage>, user: User) -> Self {
        Self { state: UserState::Present(user), cutoff: Cutoff::default(), lineage }
    }

    /// The user of the proof, if there is one.
    pub(super) const fn user(&self) -> Option<&User> {
        match &self.state {
            UserState::Present(user) => Some(user),
            UserState::Absent | UserState::Deleted(_) => None,
        }
    }
}

impl Users {
    /// Starts a session of a user who has proved who they are and may log in.
    pub(super) async fn start_session(
        &self,
        proved: Proved,
        device: &Device,
    ) -> Result<Granted, CommandError> {
        let Proved { state, cutoff, lineage } = proved;
        let seed = (self.deps.seeds)().map_err(CommandError::internal)?;
        let id = SessionId::from_uuid(ambient::new_uuid());
        let rules = self.deps.session_rules;
        let started = rules.start(&state, (lineage, cutoff.position), seed, device, ambient::now());
        let (fact, user) = started.ok_or(CommandError::InvalidCredentials)?;
        self.require_room_for_session(&user)?;
        // Only a client that knows the password sees this limit, or it would reveal who has an account.
        self.count(RateKey::By(user.id, UserAction::Login)).await?;
        let nothing = Loaded::empty(None);
        match self.append_session(user.id, id, &nothing, fact).await? {
            Some((session, position)) => {
                let login = SecurityEvent::new(Kind::Login, Outcome::Succeeded).about(user.id);
                self.record(login.by(Actor::User(user.id)).in_session(id));
                self.cap_sessions(&user).await;
                Ok(self.granted(user, session, &cutoff, position))
            }
            None => Err(CommandError::internal("a new session id was in use".to_owned())),
        }
    }

    /// Replaces a refresh token by the next one.
    pub async fn refresh(&self, token: String) -> Result<Granted, CommandError> {
        self.run_detached(|users| async move { users.refresh_now(&token).await }).await
    }

    async fn refresh_now(&self, token: &str) -> Result<Granted, CommandError> {
        const REFUSED: CommandError = CommandError::InvalidRefreshToken;
        let presented = RefreshTokens::read(token).ok_or(REFUSED)?;
        let (user, id) = (presented.user, presented.session);
        let presented = &presented;
        until_settled(|| async move {
            let loaded = self.deps.sessions.load(user, id).await?;
            let session = loaded.value.as_ref().ok_or(REFUSED)?;
            if !self.deps.refresh_tokens.made(presented, session) {
                return Err(REFUSED);
            }
            let lineage = self.deps.lineage.current();
            let cutoff = self.log().cutoff(user).await?.value;
            let state = self.log().load(user).await?.value;
            self.report_newer_epoch(session, lineage.as_ref(), &cutoff);
            let rules = self.deps.session_rules;
            let generation = presented.generation;
            let lineage = lineage.as_ref();
            match rules.refresh(session, generation, &state, &cutoff, lineage, ambient::now()) {
                Refresh::Rotated(fact, user) => {
                    self.require_room_for_session(&user)?;
                    self.count(RateKey::By(user.id, UserAction::Refresh)).await?;
                    let appended = self.append_session(user.id, id, &loaded, fact).await?;
                    Ok(appended
                        .map(|(session, at)| self.granted(user, session, &cutoff, at)))
                }
                Refresh::Repeated(user) => {
                    Ok(Some(self.granted(user, session.clone(), &cutoff, loaded.position)))
                }
                Refresh::Stolen(fact) => {
                    tracing::info!(%user, session = %id, "a replaced refresh token was used again; ending the session");
                    if self.append_session(user, id, &loaded, fact).await?.is_none() {
                        return Ok(None);
                    }
                    let theft = SecurityEvent::new(Kind::RefreshTokenTheft, Outcome::Refused);
                    self.record(theft.about(user).in_session(id));
                    Err(REFUSED)
                }
                Refresh::Refused => Err(REFUSED),
            }
        })
        .await
    }

    /// Has the log checked if a session of this history has seen a revocation that the log does not contain.
    fn report_newer_epoch(
        &self,
        session: &Session,
        lineage: Option<&LineageRecord>,
        cutoff: &Cutoff,
    ) {
        let Some(current) = lineage.map(|record| record.lineage) else { return };
        if session.lineage == Some(current) && session.epoch > cutoff.position {
            self.deps.lineage.knows_of(current, session.epoch);
        }
    }

    /// Refuses to start or prolong a session while the remaining room is reserved for ending sessions. Privileged users
    /// still get in: somebody has to stop the user who filled the log.
    fn require_room_for_session(&self, user: &User) -> Result<(), CommandError> {
        let may_wait = !self.deps.access.is_privileged(&user.roles);
        if may_wait && !self.deps.sessions.has_headroom() {
            return Err(Failure::LogFull.into());
        }
        Ok(())
    }

    /// The session that a refresh token names. The token itself is not verified.
    pub fn session_of(&self, token: &str) -> Option<(UserId, SessionId)> {
        RefreshTokens::read(token).map(|presented| (presented.user, presented.session))
    }

    /// Ends the session of a refresh token, be it the current one or an earlier one.
    pub async fn logout_with(
        &self,
        token: String,
        request: Request,
    ) -> Result<Position, CommandError> {
        self.run_detached(|users| async move {
            let refused = CommandError::InvalidRefreshToken;
            let Some(presented) = RefreshTokens::read(&token) else { return Err(refused) };
            let loaded = users.deps.sessions.load(presented.user, presented.session).await?;
            let session = loaded.value.as_ref();
            if !session.is_some_and(|session| users.deps.refresh_tokens.made(&presented, session)) {
                return Err(refused);
            }
            let (user, session) = (presented.user, presented.session);
            let ended = users.end_once(user, session, EndReason::Logout, &request).await?;
            Ok(ended.unwrap_or(loaded.position))
        })
        .await
    }

    /// Ends a session of a user; `None` if there is no such session.
    pub async fn end_session(
        &self,
        user: UserId,
        session: SessionId,
        reason: EndReason,
        request: Request,
    ) -> Result<Option<Position>, CommandError> {
        self.run_detached(
            |users| async move { users.end_once(user, session, reason, &request).await },
        )
        .await
    }

    /// Ends it under the key of a request. Ending is idempotent, so a repetition may end it again.
    async fn end_once(
        &self,
        user: UserId,
        session: SessionId,
        reason: EndReason,
        request: &Request,
    ) -> Result<Option<Position>, CommandError> {
        let ending = async { Ok(self.end(user, session, reason).await?.map(Some)) };
        match self.once(request.key.as_ref(), None, ending).await? {
            Some(ended) => Ok(ended),
            None => self.end(user, session, reason).await.map(Effect::into_answer),
        }
    }

    /// Whether a session was ended. An expired one was not; one that is no longer in the log may have been, and counts as
    /// ended.
    pub(super) async fn has_ended(
        &self,
        user: UserId,
        session: SessionId,
    ) -> Result<bool, CommandError> {
        let session = self.deps.sessions.load(user, session).await?.value;
        Ok(session.is_none_or(|session| session.ended.is_some()))
    }

    pub(super) async fn end(
        &self,
        user: UserId,
        id: SessionId,
        reason: EndReason,
    ) -> Result<Effect<Option<Position>>, CommandError> {
        until_settled(|| async move {
            let loaded = self.deps.sessions.load(user, id).await?;
            let Some(session) = &loaded.value else { return Ok(Some(Effect::Nothing(None))) };
            let Some(fact) = domain::end(session, reason) else {
                return Ok(Some(Effect::Nothing(Some(loaded.position))));
            };
            let appended = self.append_session(user, id, &loaded, fact).await?;
            Ok(appended.map(|(_, position)| Effect::Happened(Some(position))))
        })
        .await
    }

    /// Ends every session of a user and all their access tokens. There is no event of the user; the position is that of
    /// the revocation.
    pub async fn end_all_sessions(
        &self,
        user: UserId,
        request: Request,
    ) -> Result<Done, CommandError> {
        self.run_detached(|users| async move {
            users.end_sessions(&request, user, Authority::Own).await
        })
        .await
    }

    /// The same for another user.
    pub async fn end_sessions_of(
        &self,
        user: UserId,
        request: Request,
    ) -> Result<Done, CommandError> {
        self.run_detached(|users| async move {
            let authority = users.authority(request.actor).await?;
            users.end_sessions(&request, user, authority).await
        })
        .await
    }

    pub(super) async fn end_sessions(
        &self,
        request: &Request,
        user: UserId,
        authority: Authority,
    ) -> Result<Done, CommandError> {
        let origin = &request.origin();
        self.execute_or_earlier(request, || async move {
            let loaded = self.log().load(user).await?;
            if !authority.may_modify(&loaded.value, &self.deps.access) {
                return Err(CommandError::Forbidden);
            }
            Self::check_precondition(request, &loaded.value)?;
            if !matches!(loaded.value, UserState::Present(_)) {
                return Err(Rejection::NoSuchUser.into());
            }
            let cutoff = self.log().cutoff(user).await?;
            let before = loaded.map(|state| state.snapshot());
            let mut change = UserChange::decided(user, before, Vec::new(), origin)?;
            change.further.revocation = Some((cutoff.value.all(), cutoff.guard));
            change.further.revoked_by = Some(RevocationCause {
                id: ambient::new_uuid(),
                time: origin.time,
                reason: RevocationReason::LoggedOut,
                actor: origin.actor,
                command_id: origin.command_id,
                correlation_id: origin.correlation_id.clone(),
                traceparent: origin.traceparent.clone(),
            });
            Ok(change)
        })
        .await
    }

    fn granted(
        &self,
        user: User,
        session: Session,
        cutoff: &Cutoff,
        position: Position,
    ) -> Granted {
        let refresh_token = self.deps.refresh_tokens.current(&session);
        Granted { user, session, epoch: cutoff.position, refresh_token, position }
    }

    /// Appends an event of a session; `None` on a conflict.
    async fn append_session(
        &self,
        user: UserId,
        id: SessionId,
        before: &Loaded<Option<Session>>,
        fact: SessionFact,
    ) -> Result<Option<(Session, Position)>, CommandError> {
        let origin = Request::of(trace::current()).by(Actor::User(user)).origin();
        let state = before.value.clone();
        let (mut events, _) = record((user, id), state, vec![fact], &origin, ambient::new_uuid)
            .map_err(CommandError::internal)?;
        let event = events.pop().ok_or_else(|| CommandError::internal("one fact, no event"))?;
        let appended = self.deps.sessions.append(&event, before.guard).await;
        Ok(settled(appended)?.map(|position| (event.after, position)))
    }
}
