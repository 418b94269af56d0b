//! Answers to commands: their position, and whether the views have reached it.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use events::Position;
use serde::Serialize;
use service_kit::http::{CommandHeaders, POSITION, SESSION_POSITION, etag, reflects, tagged};
use service_kit::user_read::UserRead;
use service_kit::views_position::ViewsPosition;

use super::AppState;
use crate::application::Done;

impl AppState {
    /// Answers with a user (or nothing after a deletion) once the views have reached the position, or says that they
    /// have not.
    pub async fn answer(
        &self,
        status: StatusCode,
        done: Done,
        headers: &CommandHeaders,
    ) -> Response {
        let tag = etag(done.revision);
        let mut response = match done.after.user().cloned() {
            Some(user) => (status, Json(UserRead::after_write(user))).into_response(),
            None => StatusCode::NO_CONTENT.into_response(),
        };
        if response.status() != StatusCode::NO_CONTENT {
            tagged(&mut response, tag);
        }
        self.reflect(&mut response, done.position, headers).await;
        response
    }

    /// Answers with any body about a user.
    pub async fn answer_with(
        &self,
        status: StatusCode,
        body: impl Serialize,
        position: Position,
        headers: &CommandHeaders,
    ) -> Response {
        let mut response = (status, Json(body)).into_response();
        self.reflect(&mut response, position, headers).await;
        response
    }

    /// Answers without a body, once the views show the change.
    pub async fn answer_nothing(&self, position: Position, headers: &CommandHeaders) -> Response {
        let mut response = StatusCode::NO_CONTENT.into_response();
        self.reflect(&mut response, position, headers).await;
        response
    }

    /// States which position in the log of users an answer reflects, and waits for it.
    pub async fn reflect(
        &self,
        response: &mut Response,
        position: Position,
        headers: &CommandHeaders,
    ) {
        let caught_up = self.has(&self.user_views, position, headers).await;
        reflects(response, POSITION, position, caught_up);
    }

    /// States which position in the log of sessions an answer reflects, and waits for it.
    pub async fn reflect_session(
        &self,
        response: &mut Response,
        position: Position,
        headers: &CommandHeaders,
    ) {
        let caught_up = self.has(&self.session_views, position, headers).await;
        reflects(response, SESSION_POSITION, position, caught_up);
    }

    async fn has(
        &self,
        views: &ViewsPosition,
        position: Position,
        headers: &CommandHeaders,
    ) -> bool {
        !headers.respond_async && views.have(position, self.views_wait).await
    }
}
