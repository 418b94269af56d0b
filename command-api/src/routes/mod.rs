//! HTTP: extract, build the command, call the application, answer.

mod account;
mod answer;
mod auth;
mod import;
mod links;
mod problems;
mod request;
mod sessions;
mod users;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::FromRef;
use axum::routing::{delete, get, patch, post};
use service_kit::http::TrustedProxies;
use service_kit::tokens::{TokenIssuer, TokenVerifier};

use crate::application::Users;
use crate::ports::Views;
pub use import::{Report, import_lines};

/// What handlers share. Cheap to clone.
#[derive(Clone)]
pub struct AppState {
    pub users: Users,
    pub user_views: Arc<dyn Views>,
    pub session_views: Arc<dyn Views>,
    pub views_wait: Duration,
    pub issuer: TokenIssuer,
    pub verifier: TokenVerifier,
    pub trusted_proxies: TrustedProxies,
}

impl FromRef<AppState> for TrustedProxies {
    fn from_ref(state: &AppState) -> Self {
        state.trusted_proxies.clone()
    }
}

impl FromRef<AppState> for TokenVerifier {
    fn from_ref(state: &AppState) -> Self {
        state.verifier.clone()
    }
}

/// All routes of the command side.
pub fn routes(state: AppState) -> Router {
    let auth = Router::new()
        .route("/register", post(auth::register))
        .route("/login", post(auth::login))
        .route("/refresh", post(auth::refresh))
        .route("/logout", post(sessions::logout))
        .route("/logout-all", post(sessions::logout_all))
        .route("/sessions/{session_id}", delete(sessions::end))
        .route("/password-reset-request", post(account::password_reset_request))
        .route("/password-reset-confirm", post(account::password_reset_confirm))
        .route("/change-password", post(account::change_password))
        .route("/verify-email-request", post(account::verify_email_request))
        .route("/verify-email-confirm", post(account::verify_email_confirm))
        .route("/change-email", post(account::change_email))
        .route("/change-email-confirm", post(account::change_email_confirm))
        .route("/change-email-abort", post(account::change_email_abort))
        .route("/me", patch(account::change_me).delete(account::delete_me));
    Router::new()
        .nest("/api/v1/auth", auth)
        .route("/api/v1/users", post(users::create))
        .route("/api/v1/users/import", post(import::import))
        .route(
            "/api/v1/users/{user_id}",
            patch(users::change).put(users::replace).delete(users::delete),
        )
        .route("/api/v1/users/{user_id}/disable", post(users::disable))
        .route("/api/v1/users/{user_id}/enable", post(users::enable))
        .route("/api/v1/users/{user_id}/logout-all", post(users::logout_all))
        .route("/api/v1/users/{user_id}/password-reset", post(users::password_reset))
        .route("/links/{path}", get(links::page).post(links::follow))
        .with_state(state)
}
