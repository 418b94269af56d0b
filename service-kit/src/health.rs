//! `/livez` and `/readyz` on the private listener.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use futures::future::{BoxFuture, join_all};
use http::StatusCode;
use serde_json::{Map, Value, json};
use tokio::time::timeout;

/// Time limit of one check.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

type Check = Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// The readiness checks of a service. Cheap to clone.
#[derive(Clone, Default)]
pub struct Readiness {
    checks: Vec<(&'static str, Check)>,
}

impl Readiness {
    /// Adds a check; its error is shown to the operator.
    #[must_use]
    pub fn with<F, Fut>(mut self, name: &'static str, check: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), String>> + Send + 'static,
    {
        self.checks.push((name, Arc::new(move || Box::pin(check()))));
        self
    }

    /// Adds the checks of another service in the same process.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.checks.extend(other.checks);
        self
    }

    /// Runs all checks concurrently; `Ok` if all pass.
    ///
    /// # Errors
    /// Each failed check with its reason.
    pub async fn check(&self) -> Result<(), Vec<(&'static str, String)>> {
        let results = join_all(self.checks.iter().map(|(name, check)| async move {
            let result = timeout(CHECK_TIMEOUT, check()).await;
            (*name, result.unwrap_or_else(|_| Err("no answer in time".to_owned())))
        }));
        let failed: Vec<_> = results
            .await
            .into_iter()
            .filter_map(|(name, result)| result.err().map(|why| (name, why)))
            .collect();
        if failed.is_empty() { Ok(()) } else { Err(failed) }
    }

    /// The private routes.
    pub fn routes(self) -> Router {
        routes(Arc::new(OnceLock::from(self)))
    }
}

/// The private routes of a service that may still be starting: it is not ready before its checks are known.
pub(crate) fn routes(readiness: Arc<OnceLock<Readiness>>) -> Router {
    Router::new()
        .route("/livez", get(|| async { Json(json!({"status": "ok"})) }))
        .route("/readyz", get(ready))
        .with_state(readiness)
}

async fn ready(State(readiness): State<Arc<OnceLock<Readiness>>>) -> Response {
    let checked = match readiness.get() {
        Some(readiness) => readiness.check().await,
        None => Err(vec![("start", "the service is starting".to_owned())]),
    };
    match checked {
        Ok(()) => Json(json!({"status": "ready"})).into_response(),
        Err(failed) => {
            let failed: Map<String, Value> =
                failed.into_iter().map(|(name, why)| (name.to_owned(), why.into())).collect();
            let body = Json(json!({"status": "not ready", "failed": failed}));
            (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
        }
    }
}
