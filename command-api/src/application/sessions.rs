//! Sessions: start, refresh, end.

use std::sync::Arc;

use events::{
    Actor, Cutoff, EndReason, Lineage, LineageRecord, Position, RevocationCause, RevocationReason,
    Session, SessionFact, SessionId, SessionSeed, User, UserId, UserState, record,
};
use service_kit::commands::{Failure, Loaded};
use service_kit::security::{Kind, Outcome, SecurityEvent};
use service_kit::{ambient, trace};

use super::idempotency::Effect;
use super::rights::Rights;
use super::{ATTEMPTS_MAX, CommandError, Done, RefreshTokens, Request, Users, settled};
use crate::domain::{self, Device, Refresh, Rejection};
use crate::ports;
use crate::ports::throttle::{Counted, Deed};

/// Where seeds of sessions come from. They are data, as ids are.
pub type Seeds = Arc<dyn Fn() -> Result<SessionSeed, String> + Send + Sync>;

/// What a login or a refresh gives.
#[derive(Debug, Clone)]
pub struct Granted {
    /// The user of now.
    pub user: User,
    /// The session.
    pub session: Session,
    /// For the access token: the user's last revocation that was known before anything was decided.
    pub epoch: Position,
    /// The refresh token that is good now.
    pub refresh_token: String,
    /// Position of the session's last event.
    pub position: Position,
}

/// A user who has proved who they are. Only what proves it makes one, so no session starts in another way.
pub(super) struct Proved {
    state: UserState,
    cutoff: Cutoff,
    lineage: Option<Lineage>,
}

impl Proved {
    /// By a secret of the user: `lineage`, `cutoff` and `state` were read before it was compared, in this order. A
    /// revocation that comes later is newer than the epoch of the session, and another history than the session's.
    pub(super) const fn by_secret(
        lineage: Option<Lineage>,
        cutoff: Cutoff,
        state: UserState,
    ) -> Self {
        Self { state, cutoff, lineage }
    }

    /// By having become a user with this command: nothing can have been revoked before it.
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
        let seed = (self.parts.seeds)().map_err(CommandError::internal)?;
        let id = SessionId::from_uuid(ambient::new_uuid());
        let rules = self.parts.session_rules;
        let started = rules.start(&state, (lineage, cutoff.position), seed, device, ambient::now());
        let (fact, user) = started.ok_or(CommandError::InvalidCredentials)?;
        self.require_room_for_session(&user)?;
        // Only whoever knows the password learns of this limit, or it would tell who has an account.
        self.count(Counted::By(user.id, Deed::Login)).await?;
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
        let refused = CommandError::InvalidRefreshToken;
        let Some(presented) = RefreshTokens::read(token) else { return Err(refused) };
        let (user, id) = (presented.user, presented.session);
        for _ in 0..ATTEMPTS_MAX {
            let loaded = self.parts.sessions.load(user, id).await?;
            let Some(session) = &loaded.value else { return Err(refused) };
            if !self.parts.refresh_tokens.made(&presented, session) {
                return Err(refused);
            }
            let lineage = self.parts.lineage.current();
            let cutoff = self.log().cutoff(user).await?.value;
            let state = self.log().load(user).await?.value;
            self.doubt(session, lineage.as_ref(), &cutoff);
            let rules = self.parts.session_rules;
            let generation = presented.generation;
            let lineage = lineage.as_ref();
            match rules.refresh(session, generation, &state, &cutoff, lineage, ambient::now()) {
                Refresh::Rotated(fact, user) => {
                    self.require_room_for_session(&user)?;
                    self.count(Counted::By(user.id, Deed::Refresh)).await?;
                    let appended = self.append_session(user.id, id, &loaded, fact).await?;
                    if let Some((session, position)) = appended {
                        return Ok(self.granted(user, session, &cutoff, position));
                    }
                }
                Refresh::Repeated(user) => {
                    let session = session.clone();
                    return Ok(self.granted(user, session, &cutoff, loaded.position));
                }
                Refresh::Stolen(fact) => {
                    tracing::info!(%user, session = %id, "a replaced refresh token came back");
                    if self.append_session(user, id, &loaded, fact).await?.is_some() {
                        let theft = SecurityEvent::new(Kind::RefreshTokenTheft, Outcome::Refused);
                        self.record(theft.about(user).in_session(id));
                        return Err(refused);
                    }
                }
                Refresh::Refused => return Err(refused),
            }
        }
        Err(CommandError::overloaded())
    }

    /// Has the log looked at when a session of this history knows of an end of access that the log has not.
    fn doubt(&self, session: &Session, lineage: Option<&LineageRecord>, cutoff: &Cutoff) {
        let Some(current) = lineage.map(|record| record.lineage) else { return };
        if session.lineage == Some(current) && session.epoch > cutoff.position {
            self.parts.lineage.knows_of(current, session.epoch);
        }
    }

    /// Refuses to begin or prolong a session while there is no room for it, which the ends of sessions need.
    /// Whoever may act on others gets in all the same: somebody has to stop who filled it.
    fn require_room_for_session(&self, user: &User) -> Result<(), CommandError> {
        let may_wait = !self.parts.access.is_privileged(&user.roles);
        if may_wait && !self.parts.sessions.has_headroom() {
            return Err(Failure::LogFull.into());
        }
        Ok(())
    }

    /// The session that a refresh token names. Whether it is one of that session is not looked at.
    pub fn session_of(&self, token: &str) -> Option<(UserId, SessionId)> {
        RefreshTokens::read(token).map(|presented| (presented.user, presented.session))
    }

    /// Ends the session of a refresh token, whichever of its tokens it is.
    pub async fn logout_with(
        &self,
        token: String,
        request: Request,
    ) -> Result<Position, CommandError> {
        self.run_detached(|users| async move {
            let refused = CommandError::InvalidRefreshToken;
            let Some(presented) = RefreshTokens::read(&token) else { return Err(refused) };
            let loaded = users.parts.sessions.load(presented.user, presented.session).await?;
            let session = loaded.value.as_ref();
            if !session.is_some_and(|session| users.parts.refresh_tokens.made(&presented, session))
            {
                return Err(refused);
            }
            let (user, session) = (presented.user, presented.session);
            let ended = users.end_once(user, session, EndReason::Logout, &request).await?;
            Ok(ended.unwrap_or(loaded.position))
        })
        .await
    }

    /// Ends a session of a user. `None` when there is no such session.
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

    /// Ends it under the key of a request. To end again changes nothing and tells the same, so a repetition may.
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

    /// Whether a session was ended, by whomever. One whose time is over was not; one that the log no longer has may
    /// have been, and counts as ended.
    pub(super) async fn has_ended(
        &self,
        user: UserId,
        session: SessionId,
    ) -> Result<bool, CommandError> {
        let session = self.parts.sessions.load(user, session).await?.value;
        Ok(session.is_none_or(|session| session.ended.is_some()))
    }

    pub(super) async fn end(
        &self,
        user: UserId,
        id: SessionId,
        reason: EndReason,
    ) -> Result<Effect<Option<Position>>, CommandError> {
        for _ in 0..ATTEMPTS_MAX {
            let loaded = self.parts.sessions.load(user, id).await?;
            let Some(session) = &loaded.value else { return Ok(Effect::Nothing(None)) };
            let Some(fact) = domain::end(session, reason) else {
                return Ok(Effect::Nothing(Some(loaded.position)));
            };
            if let Some((_, position)) = self.append_session(user, id, &loaded, fact).await? {
                return Ok(Effect::Happened(Some(position)));
            }
        }
        Err(CommandError::overloaded())
    }

    /// Ends every session of a user and all access that came of them. No event of the user tells of it;
    /// the position is that of the revocation.
    pub async fn end_all_sessions(
        &self,
        user: UserId,
        request: Request,
    ) -> Result<Done, CommandError> {
        self.run_detached(
            |users| async move { users.end_sessions(&request, user, Rights::Own).await },
        )
        .await
    }

    /// The same for another user.
    pub async fn end_sessions_of(
        &self,
        user: UserId,
        request: Request,
    ) -> Result<Done, CommandError> {
        self.run_detached(|users| async move {
            let rights = users.rights(request.actor).await?;
            users.end_sessions(&request, user, rights).await
        })
        .await
    }

    pub(super) async fn end_sessions(
        &self,
        request: &Request,
        user: UserId,
        rights: Rights,
    ) -> Result<Done, CommandError> {
        let _running = self.in_flight.start(request.key.as_ref())?;
        let origin = request.origin();
        for _ in 0..ATTEMPTS_MAX {
            if let Some(done) = self.earlier(request.key.as_ref()).await? {
                return Ok(done);
            }
            let loaded = self.log().load(user).await?;
            if !rights.reach(&loaded.value, &self.parts.access) {
                return Err(CommandError::Forbidden);
            }
            Self::hold(request, &loaded.value)?;
            let UserState::Present(state) = loaded.value else {
                return Err(Rejection::NoSuchUser.into());
            };
            let cutoff = self.log().cutoff(user).await?;
            let mut change = ports::Change::of(user, loaded.guard);
            change.revocation = Some((cutoff.value.all(), cutoff.guard));
            change.revoked_by = Some(RevocationCause {
                id: ambient::new_uuid(),
                time: origin.time,
                reason: RevocationReason::LoggedOut,
                actor: origin.actor,
                command_id: origin.command_id,
                correlation_id: origin.correlation_id.clone(),
                traceparent: origin.traceparent.clone(),
            });
            change.key.clone_from(&request.key);
            change.unchanged = Some((state.revision, loaded.position));
            if let Some(position) = settled(self.log().append(&change).await)? {
                return Ok(Done { revision: state.revision, user: Some(state), position });
            }
        }
        Err(CommandError::overloaded())
    }

    fn granted(
        &self,
        user: User,
        session: Session,
        cutoff: &Cutoff,
        position: Position,
    ) -> Granted {
        let refresh_token = self.parts.refresh_tokens.current(&session);
        Granted { user, session, epoch: cutoff.position, refresh_token, position }
    }

    /// Stores what happened to a session. `None` when something else happened first.
    async fn append_session(
        &self,
        user: UserId,
        id: SessionId,
        before: &Loaded<Option<Session>>,
        fact: SessionFact,
    ) -> Result<Option<(Session, Position)>, CommandError> {
        let origin = Request { actor: Actor::User(user), ..Request::of(trace::current()) }.origin();
        let state = before.value.clone();
        let (mut events, _) = record((user, id), state, vec![fact], &origin, ambient::new_uuid)
            .map_err(CommandError::internal)?;
        let event = events.pop().ok_or_else(|| CommandError::internal("one fact, no event"))?;
        let appended = self.parts.sessions.append(&event, before.guard).await;
        Ok(settled(appended)?.map(|position| (event.after, position)))
    }
}
