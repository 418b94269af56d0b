//! Spans over OTLP, where an operator wants them: one for each request, and one for each event that is
//! worked on, as a child of what caused it.
//!
//! # What never happens
//! A span never holds up what it describes. Ended spans go into a queue of [`SPANS_MAX`], from which a
//! thread of its own sends them; a full queue drops, a receiver that fails or hangs costs the batch, and
//! the end of the process waits [`FLUSH_TIMEOUT`] for what is left. There are no retries: they would keep
//! the queue full for longer.
//!
//! # What does not stand in a span
//! No path, address, header or body: names are templates of routes and types of events, as in metrics.

use std::hash::{BuildHasher, RandomState};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use events::Position;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry::trace::{Link, Span as _, SpanBuilder};
use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceContextExt as _, TraceFlags, TraceId, TraceState,
    Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{
    ExporterBuildError, RetryPolicy, SpanExporter, WithExportConfig as _, WithHttpConfig as _,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SamplingDecision, SamplingResult, SdkTracer,
    SdkTracerProvider, ShouldSample, Span, SpanData,
};
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::TraceContext;
use crate::config::TelemetrySettings;
use crate::metrics::{Metrics, SpanMetrics, known_method};

/// Spans that may wait to be sent; more are dropped.
const SPANS_MAX: usize = 2_048;
/// Spans that are sent at once.
const BATCH_SPANS_MAX: usize = 512;
/// Longest time that a span waits for others to be sent with.
const BATCH_PAUSE: Duration = Duration::from_secs(2);
/// Time for one batch to be taken.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(3);
/// Time for what is left at the end.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest answer of a receiver that is read.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Spans cannot be sent at all.
#[derive(Debug, thiserror::Error)]
#[error("telemetry.otlp_endpoint cannot be used")]
pub struct TraceError(#[from] ExporterBuildError);

/// Which spans are recorded. What is caused by a span of Roster's own follows it. A request is recorded when its caller
/// does not say that it is not, and when its trace is in the share: anybody can send a `traceparent` that asks to be
/// recorded, so that is bounded, too. Which traces are in the share is drawn with a seed that nobody knows.
#[derive(Debug, Clone)]
struct Share {
    /// Of 2^32 traces.
    recorded: u64,
    seed: RandomState,
}

impl Share {
    fn of(ratio: f64) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a ratio is checked to be in 0..1"
        )]
        let recorded = (ratio * 2_f64.powi(32)) as u64;
        Self { recorded, seed: RandomState::new() }
    }

    fn has(&self, trace: TraceId) -> bool {
        self.seed.hash_one(trace.to_bytes()) >> 32 < self.recorded
    }
}

impl ShouldSample for Share {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace: TraceId,
        _: &str,
        kind: &SpanKind,
        _: &[KeyValue],
        _: &[Link],
    ) -> SamplingResult {
        let parent = parent.filter(|around| around.has_active_span());
        let wanted = parent.is_none_or(|around| around.span().span_context().is_sampled());
        let is_own = parent.is_some() && *kind != SpanKind::Server;
        let decision = match wanted && (is_own || self.has(trace)) {
            true => SamplingDecision::RecordAndSample,
            false => SamplingDecision::Drop,
        };
        let trace_state = parent.map(|around| around.span().span_context().trace_state().clone());
        SamplingResult {
            decision,
            attributes: Vec::new(),
            trace_state: trace_state.unwrap_or_default(),
        }
    }
}

/// Makes the spans of one service, or none. Cheap to clone.
#[derive(Clone, Default)]
pub struct Tracer(Option<Arc<Active>>);

struct Active {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    metrics: SpanMetrics,
}

/// Something that is going on; its span ends with it.
pub struct Recorded {
    span: Option<Span>,
    context: Option<TraceContext>,
}

impl Tracer {
    /// Begins to send spans of a service when the settings name a receiver.
    ///
    /// # Errors
    /// [`TraceError`]: start without it, or not at all.
    pub fn start(
        settings: &TelemetrySettings,
        service: &str,
        metrics: &Metrics,
    ) -> Result<Self, TraceError> {
        if settings.otlp_endpoint.is_empty() {
            return Ok(Self::default());
        }
        let metrics = metrics.spans();
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Post::new())
            .with_retry_policy(RetryPolicy::disabled())
            .with_timeout(EXPORT_TIMEOUT)
            .with_endpoint(format!("{}/v1/traces", settings.otlp_endpoint.trim_end_matches('/')))
            .build()?;
        let exporter =
            Counted { exporter, metrics: metrics.clone(), failing: AtomicBool::new(false) };
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(SPANS_MAX)
            .with_max_export_batch_size(BATCH_SPANS_MAX)
            .with_scheduled_delay(BATCH_PAUSE)
            .build();
        let resource = Resource::builder_empty()
            .with_service_name(format!("{}-{service}", settings.service_name))
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        let provider = SdkTracerProvider::builder()
            .with_sampler(Share::of(settings.trace_sample_ratio))
            .with_resource(resource)
            .with_span_processor(
                BatchSpanProcessor::builder(exporter).with_batch_config(batches).build(),
            )
            .build();
        let tracer = provider.tracer("roster");
        Ok(Self(Some(Arc::new(Active { provider, tracer, metrics }))))
    }

    /// Whether there are spans.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// A request over HTTP, as a child of what its caller says. `route` is a template.
    #[must_use]
    pub fn request(
        &self,
        method: &Method,
        route: &str,
        request_id: &str,
        caller: Option<TraceContext>,
    ) -> Recorded {
        let method = known_method(method);
        self.begin(caller, || {
            SpanBuilder::from_name(format!("{method} {route}"))
                .with_kind(SpanKind::Server)
                .with_attributes([
                    KeyValue::new("http.request.method", method.to_owned()),
                    KeyValue::new("http.route", route.to_owned()),
                    KeyValue::new("roster.request_id", request_id.to_owned()),
                ])
        })
    }

    /// The work on an event, as a child of what caused the event. Without that there is no span: nobody
    /// followed the request, or the event is older than traces are.
    #[must_use]
    pub fn event(
        &self,
        stream: &'static str,
        kind: &str,
        position: Position,
        cause: Option<TraceContext>,
    ) -> Recorded {
        if cause.is_none() {
            return Recorded { span: None, context: None };
        }
        self.begin(cause, || {
            SpanBuilder::from_name(format!("process {stream}"))
                .with_kind(SpanKind::Consumer)
                .with_attributes([
                    KeyValue::new("messaging.system", "nats"),
                    KeyValue::new("messaging.operation.type", "process"),
                    KeyValue::new("messaging.destination.name", stream),
                    KeyValue::new("roster.event_type", kind.to_owned()),
                    KeyValue::new("roster.position", position.to_string()),
                ])
        })
    }

    fn begin(
        &self,
        parent: Option<TraceContext>,
        describe: impl FnOnce() -> SpanBuilder,
    ) -> Recorded {
        let Some(active) = &self.0 else {
            return Recorded { span: None, context: parent };
        };
        let around = Context::new();
        let around = match &parent {
            Some(parent) => around.with_remote_span_context(parent.span_context()),
            None => around,
        };
        let span = active.tracer.build_with_context(describe(), &around);
        if span.is_recording() {
            active.metrics.begun();
        }
        Recorded {
            context: TraceContext::of_span(span.span_context()).or(parent),
            span: Some(span),
        }
    }

    /// Sends what is left, as far as that goes within some seconds. Nothing is recorded afterwards.
    pub async fn finished(&self) {
        let Some(active) = self.0.clone() else { return };
        let flushed =
            spawn_blocking(move || active.provider.shutdown_with_timeout(FLUSH_TIMEOUT)).await;
        if !matches!(flushed, Ok(Ok(()))) {
            tracing::warn!("the last spans could not be sent");
        }
    }
}

impl Recorded {
    /// What is caused by it has this as its parent: its own span, or without one what it was given.
    #[must_use]
    pub const fn context(&self) -> Option<&TraceContext> {
        self.context.as_ref()
    }

    /// The request was answered.
    pub fn answered(mut self, status: StatusCode) {
        let Some(span) = &mut self.span else { return };
        span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status.as_u16())));
        if status.is_server_error() {
            span.set_attribute(KeyValue::new("error.type", status.as_str().to_owned()));
            span.set_status(Status::error(""));
        }
    }

    /// It did not come to its end.
    pub fn failed(mut self) {
        if let Some(span) = &mut self.span {
            span.set_status(Status::error(""));
        }
    }
}

impl TraceContext {
    fn of_span(context: &SpanContext) -> Option<Self> {
        context.is_valid().then(|| Self {
            trace_id: u128::from_be_bytes(context.trace_id().to_bytes()),
            span_id: u64::from_be_bytes(context.span_id().to_bytes()),
            flags: context.trace_flags().to_u8(),
            state: context.trace_state().header(),
        })
    }

    fn span_context(&self) -> SpanContext {
        let state = TraceState::from_str(&self.state).unwrap_or_default();
        SpanContext::new(
            TraceId::from_bytes(self.trace_id.to_be_bytes()),
            SpanId::from_bytes(self.span_id.to_be_bytes()),
            TraceFlags::new(self.flags),
            true,
            state,
        )
    }
}

/// Counts what became of the spans, and says once that they do not arrive.
#[derive(Debug)]
struct Counted {
    exporter: SpanExporter,
    metrics: SpanMetrics,
    failing: AtomicBool,
}

impl opentelemetry_sdk::trace::SpanExporter for Counted {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len() as u64;
        let sent = self.exporter.export(batch).await;
        match &sent {
            Ok(()) => {
                self.metrics.sent(spans);
                if self.failing.swap(false, Ordering::Relaxed) {
                    tracing::info!("spans arrive again");
                }
            }
            Err(error) => {
                self.metrics.lost(spans);
                if !self.failing.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "spans do not arrive; said once until they do");
                }
            }
        }
        sent
    }

    fn shutdown_with_timeout(&self, limit: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(limit)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// Posts batches on the runtime of the service: the thread that sends has none of its own.
#[derive(Debug)]
struct Post {
    runtime: Handle,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Post {
    fn new() -> Self {
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { runtime: Handle::current(), client }
    }
}

#[async_trait]
impl HttpClient for Post {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let exchange = async move {
            let (head, body) = client.request(request.map(Full::new)).await?.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await?.to_bytes();
            Ok::<_, HttpError>(Response::from_parts(head, body))
        };
        // A timer belongs to a runtime as well: it is made there.
        self.runtime.spawn(async { timeout(EXPORT_TIMEOUT, exchange).await }).await??
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(share: &Share, kind: &SpanKind, flags: Option<TraceFlags>) -> usize {
        let decide = |number: u32| {
            // Ids that a sampler by their value would always take.
            let trace = TraceId::from(u128::from(number) << 64 | 1);
            let parent = flags.map(|flags| {
                let span = SpanId::from(7);
                let context = SpanContext::new(trace, span, flags, true, TraceState::default());
                Context::new().with_remote_span_context(context)
            });
            share.should_sample(parent.as_ref(), trace, "", kind, &[], &[]).decision
        };
        (1..=1_000).filter(|number| decide(*number) == SamplingDecision::RecordAndSample).count()
    }

    #[test]
    fn a_caller_can_ask_for_no_more_than_the_share() {
        let (server, consumer) = (SpanKind::Server, SpanKind::Consumer);
        let (sampled, not) = (Some(TraceFlags::SAMPLED), Some(TraceFlags::NOT_SAMPLED));
        let some = Share::of(0.1);
        for flags in [None, sampled] {
            assert!((40..=180).contains(&recorded(&some, &server, flags)), "{flags:?}");
        }
        assert_eq!(recorded(&some, &server, not), 0);
        assert_eq!(recorded(&some, &consumer, sampled), 1_000, "what was recorded is followed");
        assert_eq!(recorded(&some, &consumer, not), 0);
        assert_eq!(recorded(&Share::of(0.0), &server, sampled), 0);
        assert_eq!(recorded(&Share::of(1.0), &server, sampled), 1_000);
    }
}
