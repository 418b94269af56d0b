//! The request that a task works for. What it logs and what it writes to the log carry the request's id
//! and trace without every function in between handing them on.

use tokio::task_local;
use tracing::instrument::Instrument as _;
use tracing::{Span, error_span};

use super::{Requester, TraceContext};

task_local! {
    static REQUEST: Scope;
}

/// What a request is known by.
#[derive(Debug, Clone)]
pub struct Scope {
    /// The id, also in the answer's `X-Request-Id`.
    pub request_id: String,
    /// What is caused by it has this as its parent.
    pub context: Option<TraceContext>,
    /// Who is behind it.
    pub requester: Requester,
}

impl Scope {
    /// Runs something as a part of the request: all lines of its log name the request.
    pub async fn cover<F: Future>(self, inner: F) -> F::Output {
        // Of the highest level, so that no filter takes the names away from the lines it lets through.
        let span = match &self.context {
            Some(context) => {
                let trace_id = context.trace_id();
                error_span!("request", request_id = self.request_id, trace_id)
            }
            None => error_span!("request", request_id = self.request_id),
        };
        REQUEST.scope(self, inner.instrument(span)).await
    }
}

/// The request that this task works for.
#[must_use]
pub fn current() -> Option<Scope> {
    REQUEST.try_with(Scope::clone).ok()
}

/// Keeps something a part of the present request that is run by another task.
pub fn carried<F: Future>(inner: F) -> impl Future<Output = F::Output> {
    let (scope, inner) = (current(), inner.instrument(Span::current()));
    async move {
        match scope {
            Some(scope) => REQUEST.scope(scope, inner).await,
            None => inner.await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_part_of_a_request_knows_it_in_another_task_too() {
        let id = || current().map(|scope| scope.request_id);
        let requester = Requester::default();
        let scope = Scope { request_id: "one".to_owned(), context: None, requester };
        scope
            .cover(async {
                assert_eq!(id().as_deref(), Some("one"));
                let elsewhere = tokio_util::task::TaskTracker::new();
                let carried = elsewhere.spawn(carried(async move { id() }));
                let forgotten = elsewhere.spawn(async move { id() });
                assert_eq!(carried.await.unwrap().as_deref(), Some("one"));
                assert_eq!(forgotten.await.unwrap(), None);
            })
            .await;
        assert_eq!(id(), None);
    }
}
