//! `/api/v1/auth/sessions`: where the caller is logged in.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use events::{SessionId, Timestamp};
use serde::Serialize;
use service_kit::ambient;
use service_kit::http::SESSION_POSITION;
use service_kit::openapi::{AnswerHeader, Call, RequestHeader};
use service_kit::problem::{Code, Problem};
use utoipa::ToSchema;
use views::SessionView;

use super::contract::MinSessionPosition;
use super::{AppState, SessionViewer};

/// Most sessions looked at for one answer. No user has as many that are alive (`sessions.per_user_max`), so what is
/// left out is over.
const SESSIONS_MAX: i64 = 10_000;

/// A session of the caller.
#[derive(Serialize, ToSchema)]
#[schema(as = Session)]
pub struct SessionRead {
    #[schema(value_type = String, format = "uuid")]
    id: SessionId,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    last_used_at: Timestamp,
    /// The earlier of the idle and the absolute end.
    #[schema(value_type = String, format = DateTime)]
    expires_at: Timestamp,
    #[schema(required)]
    user_agent: Option<String>,
    #[schema(required)]
    ip: Option<String>,
    /// Whether it is the one that asks.
    current: bool,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Sessions)]
pub struct List {
    items: Vec<SessionRead>,
}

/// Headers and errors of [`list`].
pub const LIST: Call = Call {
    errors: &[Code::InvalidParameter, Code::NotYet],
    headers: &[RequestHeader::SessionPosition],
    answer_headers: &[AnswerHeader::SessionPosition],
};

#[utoipa::path(
    get,
    path = "/api/v1/auth/sessions",
    tag = "auth",
    operation_id = "list_sessions",
    summary = "Where the caller is logged in",
    params(MinSessionPosition),
    responses((status = 200, description = "The sessions", body = List)),
    security(("bearer" = []))
)]
pub async fn list(
    State(state): State<AppState>,
    SessionViewer(viewer): SessionViewer,
) -> Result<Response, Problem> {
    // Taken before the read: everything up to it is in what is read after it.
    let position = state.reader.session_position().await?;
    let sessions = state.reader.sessions(viewer.user.user.id, SESSIONS_MAX).await?;
    let now = ambient::now();
    let cutoff = viewer.user.cutoff;
    let items = sessions
        .into_iter()
        .filter(|session| now < session.expires_at && cutoff.spares(session.id, session.epoch))
        .map(|session| shown(session, viewer.session))
        .collect();
    let mut response = Json(List { items }).into_response();
    response.headers_mut().insert(SESSION_POSITION, position.0.into());
    Ok(response)
}

fn shown(session: SessionView, current: SessionId) -> SessionRead {
    SessionRead {
        id: session.id,
        created_at: session.created_at,
        last_used_at: session.last_used_at,
        expires_at: session.expires_at,
        user_agent: session.user_agent,
        ip: session.ip,
        current: session.id == current,
    }
}
