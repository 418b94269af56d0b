//! HTTP: extract, build the command, call the application, answer.

mod answer;
mod auth;
mod problems;
mod request;
mod users;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::FromRef;
use axum::routing::{get, patch, post};
use service_kit::keys::KeySet;
use service_kit::tokens::{TokenIssuer, TokenVerifier};

use crate::application::Users;
use crate::ports::Views;

/// What handlers share. Cheap to clone.
#[derive(Clone)]
pub struct AppState {
    pub users: Users,
    pub views: Arc<dyn Views>,
    pub views_wait: Duration,
    pub issuer: TokenIssuer,
    pub verifier: TokenVerifier,
    pub key_set: Arc<KeySet>,
}

impl FromRef<AppState> for TokenVerifier {
    fn from_ref(state: &AppState) -> Self {
        state.verifier.clone()
    }
}

/// All routes of the command side.
pub fn routes(state: AppState) -> Router {
    Router::new()
        .route("/api/v1/auth/register", post(auth::register))
        .route("/api/v1/auth/login", post(auth::login))
        .route("/api/v1/users/{user_id}", patch(users::change).delete(users::delete))
        .route("/.well-known/jwks.json", get(auth::jwks))
        .with_state(state)
}
