//! Answers to commands: the position they reached, and whether the views have it.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header::ETAG};
use axum::response::{IntoResponse, Response};
use events::Position;
use serde::Serialize;
use service_kit::http::{PENDING, POSITION};
use service_kit::user_read::{UserRead, etag};

use super::AppState;
use crate::application::Done;

impl AppState {
    /// Answers with a user (or nothing after a deletion) once the views have the position, or says that
    /// they do not.
    pub async fn answer(&self, status: StatusCode, done: Done, respond_async: bool) -> Response {
        let tag = etag(done.revision);
        let mut response = match done.user {
            Some(user) => (status, Json(UserRead::new(user, None))).into_response(),
            None => StatusCode::NO_CONTENT.into_response(),
        };
        if response.status() != StatusCode::NO_CONTENT {
            response.headers_mut().insert(ETAG, tag);
        }
        self.reflect(&mut response, done.position, respond_async).await;
        response
    }

    /// Answers with any body that is about a user.
    pub async fn answer_with(
        &self,
        status: StatusCode,
        body: impl Serialize,
        position: Position,
        respond_async: bool,
    ) -> Response {
        let mut response = (status, Json(body)).into_response();
        self.reflect(&mut response, position, respond_async).await;
        response
    }

    async fn reflect(&self, response: &mut Response, position: Position, respond_async: bool) {
        let caught_up = if respond_async || self.views_wait.is_zero() {
            false
        } else {
            self.views.have(position, self.views_wait).await
        };
        let headers = response.headers_mut();
        headers.insert(POSITION, position.0.into());
        if !caught_up {
            headers.insert(PENDING, HeaderValue::from_static("true"));
        }
    }
}
