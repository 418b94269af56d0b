//! HTTP: extract, build the command, call the application, answer.

mod account;
mod answer;
mod auth;
mod bodies;
mod contract;
mod import;
mod links;
mod problems;
mod request;
mod sessions;
mod users;

use std::time::Duration;

use axum::Router;
use axum::extract::FromRef;
use axum::routing::get;
use service_kit::http::TrustedProxies;
use service_kit::openapi;
use service_kit::tokens::{TokenIssuer, TokenVerifier};
use service_kit::views_position::ViewsPosition;
use utoipa::openapi::OpenApi;
use utoipa::{PartialSchema, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::application::Users;
pub use import::{Report, import_lines};

/// What handlers share. Cheap to clone.
#[derive(Clone)]
pub struct AppState {
    pub users: Users,
    pub user_views: ViewsPosition,
    pub session_views: ViewsPosition,
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
    let (described, _) = described().with_state(state.clone()).split_for_parts();
    let pages = Router::new()
        .route("/links/{path}", get(links::page).post(links::follow))
        .with_state(state);
    described.merge(pages)
}

/// The description of all calls, without a running service.
pub fn openapi() -> OpenApi {
    let mut document = described().into_openapi();
    openapi::complete(&mut document, contract::EXTRAS);
    document
}

/// The calls, each with its description. The pages behind links are for people and are described nowhere.
fn described() -> OpenApiRouter<AppState> {
    let mut head = openapi::head();
    let schemas = &mut head.components.get_or_insert_default().schemas;
    schemas.insert(bodies::ImportLine::name().into_owned(), bodies::ImportLine::schema());
    schemas.insert(import::Line::name().into_owned(), import::Line::schema());
    OpenApiRouter::with_openapi(head)
        .routes(routes!(auth::register))
        .routes(routes!(auth::login))
        .routes(routes!(auth::refresh))
        .routes(routes!(sessions::logout))
        .routes(routes!(sessions::logout_all))
        .routes(routes!(sessions::end))
        .routes(routes!(account::password_reset_request))
        .routes(routes!(account::password_reset_confirm))
        .routes(routes!(account::change_password))
        .routes(routes!(account::verify_email_request))
        .routes(routes!(account::verify_email_confirm))
        .routes(routes!(account::change_email))
        .routes(routes!(account::change_email_confirm))
        .routes(routes!(account::change_email_abort))
        .routes(routes!(account::change_email_undo))
        .routes(routes!(account::change_me, account::delete_me))
        .routes(routes!(users::create))
        .routes(routes!(import::import))
        .routes(routes!(users::change, users::replace, users::delete))
        .routes(routes!(users::disable))
        .routes(routes!(users::enable))
        .routes(routes!(users::logout_all))
        .routes(routes!(users::password_reset))
}
