//! The client and the caller of a request.

use axum::extract::{FromRef, FromRequestParts};
use axum::http::header::USER_AGENT;
use axum::http::request::Parts;
use service_kit::commands::Request;
use service_kit::http::{ClientAddress, IDEMPOTENCY_KEY, TrustedProxies};
use service_kit::problem::{Code, Problem};
use service_kit::tokens::{Authenticated, Caller, TokenVerifier, bearer};

use super::AppState;
use crate::application::Done;
use crate::domain::Device;

/// The client of a request: its address and its user agent.
#[derive(Debug, Clone)]
pub struct ClientDevice(pub Device);

/// Longest user agent that is kept, in characters.
const USER_AGENT_MAX: usize = 256;

impl<S> FromRequestParts<S> for ClientDevice
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

/// The caller of a command that ends the caller's own access: a repetition comes with a token that is no longer
/// valid.
pub enum Repeating {
    /// The token is valid.
    Good(Caller),
    /// The token was valid, by signature and expiry, and the request has a key: a recorded answer may be given, and
    /// nothing done.
    Ended(Caller),
}

impl Repeating {
    /// The caller in either case: keys are per caller.
    pub const fn anybody(&self) -> &Caller {
        match self {
            Self::Good(caller) | Self::Ended(caller) => caller,
        }
    }
}

impl<S> FromRequestParts<S> for Repeating
where
    S: Send + Sync,
    TokenVerifier: FromRef<S>,
{
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Authenticated::from_request_parts(parts, state).await {
            Ok(Authenticated(caller)) => Ok(Self::Good(caller)),
            Err(refused)
                if refused.code() == Code::Unauthorized
                    && parts.headers.contains_key(IDEMPOTENCY_KEY) =>
            {
                TokenVerifier::from_ref(state).verify_signature(bearer(parts)?).map(Self::Ended)
            }
            Err(refused) => Err(refused),
        }
    }
}

impl AppState {
    /// The recorded result of a request whose token is no longer valid, if it is a repetition.
    pub async fn replayed(&self, request: Request) -> Result<Done, Problem> {
        let done = self.users.replayed(request).await?;
        done.ok_or_else(|| Problem::new(Code::Unauthorized))
    }
}
