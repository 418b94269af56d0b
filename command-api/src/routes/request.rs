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

/// Longest name of a client that is kept, in characters.
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

/// A caller of what ends its own access: the same request again comes with a token that is dead by then.
pub enum Repeating {
    /// The token is good.
    Good(Caller),
    /// It was, by signature and expiry, and the request has a key. The answer to that key may be told, and nothing done.
    Ended(Caller),
}

impl Repeating {
    /// Whoever it is: keys are per caller.
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
    /// What a request whose token is dead led to, when it is a repetition.
    pub async fn replayed(&self, request: Request) -> Result<Done, Problem> {
        let done = self.users.replayed(request).await?;
        done.ok_or_else(|| Problem::new(Code::Unauthorized))
    }
}
