//! HTTP: who asks, from which position on, and the answer.

mod contract;
mod history;
mod sessions;
mod users;

use std::time::Duration;

use axum::Router;
use axum::extract::{FromRef, FromRequestParts};
use axum::http::request::Parts;
use events::{SessionId, Status};
use service_kit::access::Permission;
use service_kit::http::SESSION_POSITION;
use service_kit::http::freshness::{fresh, fresh_in};
use service_kit::keys::SecretKey;
use service_kit::openapi::{self, call};
use service_kit::problem::{Code, Problem};
use service_kit::tokens::{Authenticated, Caller, TokenVerifier};
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use views::LivingUser;

use crate::reader::{Found, Reader};

/// What handlers share. Cheap to clone.
#[derive(Clone)]
pub struct AppState {
    pub reader: Reader,
    pub verifier: TokenVerifier,
    pub cursor_key: SecretKey,
    pub query_wait: Duration,
}

impl FromRef<AppState> for TokenVerifier {
    fn from_ref(state: &AppState) -> Self {
        state.verifier.clone()
    }
}

/// All routes of the query side.
pub fn routes(state: AppState) -> Router {
    described().with_state(state).split_for_parts().0
}

/// The description of all calls, without a running service.
#[must_use]
pub fn openapi() -> OpenApi {
    let mut document = described().into_openapi();
    openapi::complete(&mut document);
    document
}

fn described() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(openapi::head())
        .routes(call(routes!(users::me), &users::ME))
        .routes(call(routes!(sessions::list), &sessions::LIST))
        .routes(call(routes!(users::list), &users::LIST))
        .routes(call(routes!(users::by_id), &users::BY_ID))
        .routes(call(routes!(history::list), &history::LIST))
}

/// A caller whose token is valid and who is an active user in the views, from the position on that the
/// request asks for. A token outlives a deletion by minutes; this does not.
#[derive(Debug, Clone)]
pub struct Viewer {
    /// The caller.
    pub user: LivingUser,
    /// The session of the caller's token.
    pub session: SessionId,
    /// The position that the answer reflects.
    pub position: events::Position,
    sees_everyone: bool,
}

impl Viewer {
    /// Whether the caller may see users other than itself.
    pub const fn sees_everyone(&self) -> bool {
        self.sees_everyone
    }
}

impl FromRequestParts<AppState> for Viewer {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        let Authenticated(caller) = Authenticated::from_request_parts(parts, state).await?;
        fresh(parts, |position| state.reader.wait_for(position, state.query_wait)).await?;
        Self::of(caller, state).await
    }
}

/// The same for what is read of sessions: positions are those of their log.
#[derive(Debug, Clone)]
pub struct SessionViewer(pub Viewer);

impl FromRequestParts<AppState> for SessionViewer {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Problem> {
        let Authenticated(caller) = Authenticated::from_request_parts(parts, state).await?;
        let wait_for = |position| state.reader.wait_for_session(position, state.query_wait);
        fresh_in(parts, &SESSION_POSITION, wait_for).await?;
        Viewer::of(caller, state).await.map(Self)
    }
}

impl Viewer {
    async fn of(caller: Caller, state: &AppState) -> Result<Self, Problem> {
        match state.reader.user(caller.user).await? {
            Found::Living(user, position) if user.user.status == Status::Active => {
                // By the views: a token may be older than the last change of roles.
                let sees_everyone =
                    state.verifier.access().allows(&user.user.roles, Permission::ReadUsers);
                if sees_everyone {
                    state.verifier.check_current()?;
                }
                Ok(Self { user: *user, session: caller.session, position, sees_everyone })
            }
            Found::Living(..) | Found::Tombstone(_) => Err(Problem::new(Code::Unauthorized)),
            // A valid token for nobody: registered a moment ago, and the views are behind.
            Found::Nobody => {
                Err(Problem::new(Code::NotYet).detail("the views do not know the caller yet"))
            }
        }
    }
}
