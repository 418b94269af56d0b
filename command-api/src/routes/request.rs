//! Where a request comes from.

use axum::extract::{FromRef, FromRequestParts};
use axum::http::header::USER_AGENT;
use axum::http::request::Parts;
use service_kit::http::{ClientAddress, TrustedProxies};
use service_kit::problem::Problem;

use crate::domain::Device;

/// Where the client is and what it calls itself.
#[derive(Debug, Clone)]
pub struct From(pub Device);

/// Longest name of a client that is kept, in characters.
const USER_AGENT_MAX: usize = 256;

impl<S> FromRequestParts<S> for From
where
    S: Send + Sync,
    TrustedProxies: FromRef<S>,
{
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let ClientAddress(ip) = ClientAddress::from_request_parts(parts, state).await?;
        let user_agent = parts.headers.get(USER_AGENT).and_then(|value| value.to_str().ok());
        let user_agent = user_agent.map(|text| text.chars().take(USER_AGENT_MAX).collect());
        Ok(Self(Device { ip, user_agent }))
    }
}
