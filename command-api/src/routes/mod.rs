//! HTTP: extract, build the command, call the application, answer.

mod account;
mod answer;
mod auth;
mod contract;
mod import;
mod links;
mod members;
mod problems;
mod request;
mod sessions;
mod users;

use std::time::Duration;

use axum::Router;
use axum::extract::FromRef;
use axum::routing::get;
use service_kit::http::TrustedProxies;
use service_kit::openapi::{self, call};
use service_kit::tokens::{TokenIssuer, TokenVerifier};
use service_kit::views_position::ViewsPosition;
use utoipa::openapi::OpenApi;
use utoipa::{PartialSchema, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::application::Users;
pub use import::{Report, import_lines};

/// State shared by the handlers. Cheap to clone.
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
    openapi::complete(&mut document);
    document
}

/// The calls, each with its description. The pages behind links are for people and not described.
fn described() -> OpenApiRouter<AppState> {
    let mut head = openapi::head();
    let schemas = &mut head.components.get_or_insert_default().schemas;
    schemas.insert(import::ImportLine::name().into_owned(), import::ImportLine::schema());
    schemas.insert(import::Line::name().into_owned(), import::Line::schema());
    OpenApiRouter::with_openapi(head)
        .routes(call(routes!(auth::register), &auth::REGISTER))
        .routes(call(routes!(auth::login), &auth::LOGIN))
        .routes(call(routes!(auth::refresh), &auth::REFRESH))
        .routes(call(routes!(sessions::logout), &sessions::LOGOUT))
        .routes(call(routes!(sessions::logout_all), &sessions::LOGOUT_ALL))
        .routes(call(routes!(sessions::end), &sessions::END))
        .routes(call(routes!(account::password_reset_request), &account::PASSWORD_RESET_REQUEST))
        .routes(call(routes!(account::password_reset_confirm), &account::PASSWORD_RESET_CONFIRM))
        .routes(call(routes!(account::change_password), &account::CHANGE_PASSWORD))
        .routes(call(routes!(account::verify_email_request), &account::VERIFY_EMAIL_REQUEST))
        .routes(call(routes!(account::verify_email_confirm), &account::VERIFY_EMAIL_CONFIRM))
        .routes(call(routes!(account::change_email), &account::CHANGE_EMAIL))
        .routes(call(routes!(account::change_email_confirm), &account::CHANGE_EMAIL_CONFIRM))
        .routes(call(routes!(account::change_email_abort), &account::CHANGE_EMAIL_ABORT))
        .routes(call(routes!(account::change_email_undo), &account::CHANGE_EMAIL_UNDO))
        .routes(call(routes!(account::change_me), &account::CHANGE_ME))
        .routes(call(routes!(account::delete_me), &account::DELETE_ME))
        .routes(call(routes!(users::create), &users::CREATE))
        .routes(call(routes!(import::import), &import::IMPORT))
        .routes(call(routes!(users::change), &users::CHANGE))
        .routes(call(routes!(users::replace), &users::CHANGE))
        .routes(call(routes!(users::delete), &users::DELETE))
        .routes(call(routes!(users::disable), &users::CHANGE))
        .routes(call(routes!(users::enable), &users::CHANGE))
        .routes(call(routes!(users::logout_all), &users::CHANGE))
        .routes(call(routes!(users::password_reset), &users::PASSWORD_RESET))
}
