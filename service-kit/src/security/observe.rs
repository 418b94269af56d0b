//! What every request tells the record: where it comes from; and which calls about other users there were.

use std::collections::HashMap;
use std::net::SocketAddr;

use axum::RequestExt as _;
use axum::extract::{ConnectInfo, MatchedPath, Path, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use events::UserId;
use http::header::USER_AGENT;

use super::{Kind, Outcome, SecurityEvent, SecurityRecorder};
use crate::http::TrustedProxies;
use crate::problem::{Code, Problem};
use crate::trace::{self, ClientDevice};

/// Longest name of a client that is recorded, in characters.
const USER_AGENT_CHARS_MAX: usize = 256;
/// The part of a route that names the user whom a call is about.
const USER_ID: &str = "user_id";

/// What the layer needs.
#[derive(Clone)]
pub struct Observed {
    /// Where records go.
    pub recorder: SecurityRecorder,
    /// Whose word about addresses is taken.
    pub trusted_proxies: TrustedProxies,
    /// What the routes of calls about other users begin with.
    pub administrative: &'static str,
}

/// A layer around the routes of a service.
pub async fn observe(
    State(observed): State<Observed>,
    mut request: Request,
    next: Next,
) -> Response {
    let Some(scope) = trace::current() else { return next.run(request).await };
    if let Some(ConnectInfo(peer)) = request.extensions().get::<ConnectInfo<SocketAddr>>() {
        let ip = observed.trusted_proxies.client(peer.ip(), request.headers());
        let user_agent = request.headers().get(USER_AGENT).and_then(|value| value.to_str().ok());
        let user_agent = user_agent.map(|text| text.chars().take(USER_AGENT_CHARS_MAX).collect());
        scope.requester.comes_from(ClientDevice { ip, user_agent });
    }
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let method = request.method().clone();
    let about = about(&mut request).await;
    let response = next.run(request).await;

    let Some((caller, _)) = scope.requester.caller() else { return response };
    let route = route.unwrap_or_default();
    let status = response.status();
    let is_denied =
        response.extensions().get::<Problem>().is_some_and(|p| p.code() == Code::Forbidden);
    let is_administrative = route.starts_with(observed.administrative) && about != Some(caller);
    let outcome = if is_denied {
        Outcome::Refused
    } else if is_administrative && status.is_success() {
        Outcome::Succeeded
    } else if is_administrative && status.is_server_error() {
        Outcome::Unknown
    } else {
        return response;
    };
    let event = SecurityEvent::new(Kind::AdministrativeCall, outcome)
        .operation(format!("{method} {route}"));
    let event = if is_denied { event.because(Code::Forbidden.as_str()) } else { event };
    observed.recorder.record(match about {
        Some(user) => event.about(user),
        None => event,
    });
    response
}

/// The user whom the path names.
async fn about(request: &mut Request) -> Option<UserId> {
    let parts: Path<HashMap<String, String>> = request.extract_parts().await.ok()?;
    parts.get(USER_ID)?.parse().ok()
}
