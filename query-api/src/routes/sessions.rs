//! `/api/v1/auth/sessions`: where the caller is logged in.

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use axum::response::{IntoResponse, Response};
use events::{SessionId, Timestamp};
use serde::Serialize;
use service_kit::ambient;
use service_kit::problem::{Code, Problem};
use views::SessionView;

use super::{AppState, Viewer};

/// Most sessions in one answer. Whoever has more sees the newest.
const SESSIONS_MAX: i64 = 1_000;

/// `Session` of the contract.
#[derive(Serialize)]
struct SessionRead {
    id: SessionId,
    created_at: Timestamp,
    last_used_at: Timestamp,
    expires_at: Timestamp,
    user_agent: Option<String>,
    ip: Option<String>,
    current: bool,
}

#[derive(Serialize)]
struct List {
    items: Vec<SessionRead>,
}

pub async fn list(
    State(state): State<AppState>,
    viewer: Viewer,
    uri: Uri,
) -> Result<Response, Problem> {
    if uri.query().is_some_and(|query| !query.is_empty()) {
        return Err(Problem::new(Code::InvalidParameter).detail("there are no parameters"));
    }
    let sessions = state.reader.sessions(viewer.user.user.id, SESSIONS_MAX).await?;
    let now = ambient::now();
    let cutoff = viewer.user.cutoff;
    let items = sessions
        .into_iter()
        .filter(|session| now < session.expires_at && cutoff.spares(session.id, session.epoch))
        .map(|session| shown(session, viewer.session))
        .collect();
    Ok(Json(List { items }).into_response())
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
