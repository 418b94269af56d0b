//! What Prometheus scrapes: `/metrics` on the private listener.
//!
//! One table holds every metric of every service, and `docs/metrics.md` explains each; a test compares
//! both ways. A process has one registry, and each service in it a handle that puts its name into the
//! label `service`, so that `roster dev` tells its services apart. There is no global: whoever is watched
//! is handed a [`Metrics`], and takes from it a handle with all its values at 0.
//!
//! # Labels
//! A label has few values, whatever clients send: routes are templates, methods the known ones, the rest
//! are names of this code. No id, address or path is a label.

mod handles;
#[cfg(test)]
mod watching;

use std::borrow::Cow;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::future::{BoxFuture, join_all};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use prometheus_client::encoding::prometheus_text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tokio::time::timeout;

use crate::ambient;
pub(crate) use handles::known_method;
pub use handles::{
    CheckMetrics, ErasureMetrics, ForeignMetrics, GenerationMetrics, HashMetrics, InFlight,
    LogMetrics, MailMetrics, ProjectorMetrics, SecurityMetrics, SpanMetrics, StreamMetrics,
    ThrottleMetrics, ViewsMetrics,
};

/// Time that everything which is looked up for a scrape may take.
const SAMPLES_TIMEOUT: Duration = Duration::from_secs(2);
/// Bounds of every histogram, in seconds: from a read in memory to the longest wait there is.
const SECONDS: [f64; 13] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

type Value = Cow<'static, str>;
type Level = Gauge<f64, AtomicU64>;

/// One metric of the table with a value for each set of labels.
#[derive(Clone)]
struct Many<M, const N: usize> {
    labels: [&'static str; N],
    family: Family<[(&'static str, Value); N], M>,
}

impl<M: Clone, const N: usize> Many<M, N> {
    fn with(&self, values: [Value; N]) -> M {
        let mut values = values.into_iter();
        self.family.get_or_create_owned(&self.labels.map(|label| {
            // As many values as labels: `N` of both.
            (label, values.next().unwrap_or_default())
        }))
    }
}

/// How a metric of the table is made.
trait Kind {
    type Metric;
    fn new() -> Self::Metric;
}

struct Count;
struct Gauged;
struct Seconds;

impl Kind for Count {
    type Metric = Counter;
    fn new() -> Counter {
        Counter::default()
    }
}

impl Kind for Gauged {
    type Metric = Level;
    fn new() -> Level {
        Level::default()
    }
}

impl Kind for Seconds {
    type Metric = Histogram;
    fn new() -> Histogram {
        Histogram::new(SECONDS)
    }
}

macro_rules! table {
    ($(#[doc = $help:literal] $field:ident: $kind:ident = $name:literal [$($label:literal),+];)*) => {
        /// Every metric there is.
        struct Table { $($field: Many<<$kind as Kind>::Metric, { [$($label),+].len() }>,)* }

        impl Table {
            fn register(registry: &mut Registry) -> Self {
                Self { $($field: {
                    let labels = [$($label),+];
                    let family = Family::new_with_constructor($kind::new as fn() -> _);
                    // The encoder puts the suffix of counters back.
                    let name = $name.trim_end_matches("_total");
                    registry.register(name, $help.trim().trim_end_matches('.'), family.clone());
                    Many { labels, family }
                },)* }
            }

            /// Name, kind as it is called here, and labels of each.
            #[cfg(test)]
            const ALL: &'static [(&'static str, &'static str, &'static [&'static str])] =
                &[$(($name, stringify!($kind), &[$($label),+])),*];
        }
    };
}

table! {
    /// Version that runs; always 1.
    build_info: Gauged = "roster_build_info" ["service", "version"];
    /// When the process started, in seconds since 1970.
    process_start: Gauged = "process_start_time_seconds" ["service"];
    /// Requests that were answered.
    http_requests: Count = "roster_http_requests_total" ["service", "method", "route", "status"];
    /// Time from the head of a request to the head of its answer.
    http_duration: Seconds = "roster_http_request_duration_seconds" ["service", "method", "route"];
    /// Requests that are being worked on.
    http_in_flight: Gauged = "roster_http_requests_in_flight" ["service"];
    /// Appends to a stream, by what came of them.
    appends: Count = "roster_log_appends_total" ["service", "stream", "outcome"];
    /// Time of an append with its retries and look-ups.
    append_duration: Seconds = "roster_log_append_duration_seconds" ["service", "stream"];
    /// Appends that were sent again, for want of an answer or of a place for a batch.
    append_retries: Count = "roster_log_append_retries_total" ["service", "stream"];
    /// Messages that no writer of the stream wrote, passed over.
    foreign: Count = "roster_log_foreign_messages_total" ["service", "stream"];
    /// Bytes that a stream holds.
    stream_bytes: Gauged = "roster_stream_bytes" ["service", "stream"];
    /// Bytes that a stream has room for.
    stream_bytes_max: Gauged = "roster_stream_bytes_max" ["service", "stream"];
    /// Waits for the views, by how they ended.
    views_waits: Count = "roster_views_waits_total" ["service", "views", "outcome"];
    /// Time that was waited for the views.
    views_wait_duration: Seconds = "roster_views_wait_duration_seconds" ["service", "views"];
    /// The generation of the views that is read.
    views_generation: Gauged = "roster_views_generation" ["service", "views"];
    /// Passwords that wait to be hashed.
    hash_queue: Gauged = "roster_hash_queue_depth" ["service"];
    /// Passwords that were turned away, since too many waited.
    hash_shed: Count = "roster_hash_shed_total" ["service"];
    /// Time of one hash, without the wait before it.
    hash_duration: Seconds = "roster_hash_duration_seconds" ["service", "operation"];
    /// Attempts that a limit refused.
    throttle_refusals: Count = "roster_throttle_refusals_total" ["service", "policy"];
    /// For how long a feed of revocations has been silent.
    revocations_silence: Gauged = "roster_revocations_silence_seconds" ["service", "feed"];
    /// How long ago keys of access tokens were fetched.
    keys_age: Gauged = "roster_keys_age_seconds" ["service"];
    /// Position of the log that the views have.
    projector_position: Gauged = "roster_projector_position" ["service", "stream"];
    /// Messages that the views lacked when the last batch was written.
    projector_lag: Gauged = "roster_projector_lag_events" ["service", "stream"];
    /// Age of the oldest event that the views lack.
    projector_lag_seconds: Gauged = "roster_projector_lag_seconds" ["service", "stream"];
    /// When the projector last knew that the views follow the log, in seconds since 1970.
    projector_progress: Gauged = "roster_projector_last_progress_timestamp_seconds" ["service", "stream"];
    /// Users and sessions of which an event cannot be read, so that they are parked.
    projector_parked: Gauged = "roster_projector_parked" ["service", "stream"];
    /// Messages that were folded into the views.
    projector_events: Count = "roster_projector_events_applied_total" ["service", "stream"];
    /// Writes to the database, each of all messages that had come.
    projector_batches: Count = "roster_projector_batches_total" ["service", "stream"];
    /// Time of one such write.
    projector_batch_duration: Seconds = "roster_projector_batch_duration_seconds" ["service", "stream"];
    /// How often the projector started again from its checkpoint.
    projector_restarts: Count = "roster_projector_restarts_total" ["service", "stream"];
    /// Users of whom log, views and feed were compared.
    checked: Count = "roster_checked_users_total" ["service"];
    /// What differs between log, views and feed.
    check_differences: Count = "roster_check_differences_total" ["service", "where"];
    /// Orders of mails that were worked on, by what came of them.
    mails: Count = "roster_mails_total" ["service", "outcome"];
    /// Erasures that are done, by what they were for.
    erasures: Count = "roster_erasures_total" ["service", "kind"];
    /// Messages that were erased.
    erased_messages: Count = "roster_erased_messages_total" ["service", "stream"];
    /// Age of the oldest message that leads to an erasure, or may, and is not seen to.
    erasure_oldest: Gauged = "roster_erasure_oldest_seconds" ["service"];
    /// What is worth a security record.
    security_events: Count = "roster_security_events_total" ["service", "kind", "outcome"];
    /// Security records, by what became of them.
    security_records: Count = "roster_security_records_total" ["service", "outcome"];
    /// Spans of traces, by what became of them.
    spans: Count = "roster_trace_spans_total" ["service", "outcome"];
}

type Sample = Box<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

struct Process {
    registry: Registry,
    table: Table,
    samples: Mutex<Vec<Arc<Sample>>>,
}

/// The metrics of one service; its clones are the same. [`Metrics::of`] gives those of another one in the
/// same process.
#[derive(Clone)]
pub struct Metrics {
    process: Arc<Process>,
    service: &'static str,
}

impl Metrics {
    /// The metrics of a new process.
    #[must_use]
    pub fn new(service: &'static str) -> Self {
        let mut registry = Registry::default();
        let table = Table::register(&mut registry);
        let process = Process { registry, table, samples: Mutex::default() };
        let metrics = Self { process: Arc::new(process), service };
        let started = metrics.table().process_start.with([metrics.service()]);
        started.set(handles::unix_seconds(ambient::now()));
        metrics.of(service)
    }

    /// The metrics of a service in this process.
    #[must_use]
    pub fn of(&self, service: &'static str) -> Self {
        let metrics = Self { process: Arc::clone(&self.process), service };
        let version = env!("CARGO_PKG_VERSION").into();
        metrics.table().build_info.with([metrics.service(), version]).set(1.0);
        metrics
    }

    /// The private route, of all services of the process.
    pub fn routes(&self) -> Router {
        Router::new().route("/metrics", get(scrape)).with_state(self.clone())
    }

    /// Adds what is looked up for each scrape. What takes too long keeps its last value.
    pub fn sample<F, Fut>(&self, look_up: F)
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.samples().push(Arc::new(Box::new(move || Box::pin(look_up()))));
    }

    /// Everything, in the text format of Prometheus.
    async fn text(&self) -> Result<String, std::fmt::Error> {
        let samples = self.samples().clone();
        let look_ups = samples.iter().map(|sample| timeout(SAMPLES_TIMEOUT, sample()));
        join_all(look_ups).await;
        let mut text = String::new();
        prometheus_text::encode(&mut text, &self.process.registry)?;
        Ok(text)
    }

    fn table(&self) -> &Table {
        &self.process.table
    }

    fn samples(&self) -> MutexGuard<'_, Vec<Arc<Sample>>> {
        self.process.samples.lock().unwrap_or_else(PoisonError::into_inner)
    }

    const fn service(&self) -> Value {
        Cow::Borrowed(self.service)
    }
}

async fn scrape(State(metrics): State<Metrics>) -> Response {
    match metrics.text().await {
        Ok(text) => ([(CONTENT_TYPE, prometheus_text::CONTENT_TYPE)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    /// The page for operators has every metric with its kind and labels, and no other.
    #[test]
    fn the_page_of_metrics_and_the_table_are_one() {
        let page = include_str!("../../../docs/metrics.md");
        let documented: Vec<Vec<String>> = page
            .lines()
            .filter(|line| line.starts_with("| `"))
            .map(|line| {
                line.split('|').skip(1).take(3).map(|cell| cell.trim().replace('`', "")).collect()
            })
            .collect();
        let table: Vec<Vec<String>> = Table::ALL
            .iter()
            .map(|(name, kind, labels)| {
                let kind = match *kind {
                    "Count" => "counter",
                    "Gauged" => "gauge",
                    _ => "histogram",
                };
                vec![(*name).to_owned(), kind.to_owned(), labels.join(", ")]
            })
            .collect();
        assert_eq!(documented, table);
        for (name, kind, _) in Table::ALL {
            assert_eq!(name.ends_with("_total"), *kind == "Count", "{name}");
            assert!(*kind != "Seconds" || name.ends_with("_seconds"), "{name}");
        }
    }

    #[tokio::test]
    async fn services_of_one_process_are_told_apart() {
        let process = Metrics::new("dev");
        let (one, other) = (process.of("one"), process.of("other"));
        one.request_ended(&Method::GET, "/a/{id}", StatusCode::OK, Duration::from_millis(3));
        let strange = Method::from_bytes(b"STRANGE").unwrap();
        other.request_ended(&strange, "unmatched", StatusCode::NOT_FOUND, Duration::ZERO);
        let in_flight = other.request_begins();
        let sampled = one.clone();
        process.sample(move || {
            sampled.revocations_silence("users", Duration::from_millis(1_500));
            std::future::ready(())
        });
        let text = process.text().await.unwrap();
        for line in [
            r#"roster_http_requests_total{service="one",method="GET",route="/a/{id}",status="200"} 1"#,
            r#"roster_http_requests_total{service="other",method="other",route="unmatched",status="404"} 1"#,
            r#"roster_http_request_duration_seconds_count{service="one",method="GET",route="/a/{id}"} 1"#,
            r#"roster_http_requests_in_flight{service="other"} 1.0"#,
            r#"roster_revocations_silence_seconds{service="one",feed="users"} 1.5"#,
            concat!(
                r#"roster_build_info{service="one",version=""#,
                env!("CARGO_PKG_VERSION"),
                r#""} 1.0"#
            ),
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
        assert_eq!(text.matches("# TYPE roster_http_requests_total counter").count(), 1);
        drop(in_flight);
        let text = other.text().await.unwrap();
        assert!(text.contains(r#"roster_http_requests_in_flight{service="other"} 0.0"#), "{text}");
    }
}
