//! Requests over HTTP.

use std::time::Duration;

use http::{Method, StatusCode};

use super::seconds;
use crate::metrics::{Level, Metrics, Value};

impl Metrics {
    /// A request begins.
    #[must_use]
    pub fn request_begins(&self) -> InFlight {
        let level = self.table().http_in_flight.with([self.service()]);
        level.inc();
        InFlight(level)
    }

    /// A request was answered. `route` is a template.
    pub fn request_ended(&self, method: &Method, route: &str, status: StatusCode, took: Duration) {
        let method: Value = known_method(method).to_owned().into();
        let route: Value = route.to_owned().into();
        let status = status.as_str().to_owned().into();
        let table = self.table();
        table
            .http_duration
            .with([self.service(), method.clone(), route.clone()])
            .observe(seconds(took));
        table.http_requests.with([self.service(), method, route, status]).inc();
    }
}

/// Methods with a name of their own.
const METHODS: [Method; 7] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
    Method::OPTIONS,
];

/// The method, or `other` for a word of which the client alone knows the meaning.
pub(crate) fn known_method(method: &Method) -> &str {
    if METHODS.contains(method) { method.as_str() } else { "other" }
}

/// Counts a request among those that are worked on, until it is dropped.
pub struct InFlight(Level);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}
