//! A receiver of spans: OTLP in protobuf over HTTP.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A span as it arrived.
#[derive(Debug, Clone)]
pub struct Received {
    /// `service.name`.
    pub service: String,
    /// All of it.
    pub span: Span,
}

impl Received {
    /// The id of its trace in hex.
    pub fn trace_id(&self) -> String {
        hex(&self.span.trace_id)
    }

    /// Its own id in hex.
    pub fn span_id(&self) -> String {
        hex(&self.span.span_id)
    }

    /// The id of its parent in hex; empty when it begins a trace.
    pub fn parent_id(&self) -> String {
        hex(&self.span.parent_span_id)
    }

    /// An attribute that is a text or a number, as text.
    pub fn attribute(&self, name: &str) -> Option<String> {
        attribute(&self.span.attributes, name)
    }
}

type Spans = Arc<Mutex<Vec<Received>>>;

/// A running receiver. It ends when it is dropped.
pub struct OtlpReceiver {
    address: SocketAddr,
    spans: Spans,
    serving: JoinHandle<()>,
}

impl OtlpReceiver {
    /// Starts on a free port.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let spans = Spans::default();
        let routes = Router::new().route("/v1/traces", post(take)).with_state(Arc::clone(&spans));
        #[expect(clippy::disallowed_methods, reason = "its owner ends it")]
        let serving = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self { address, spans, serving }
    }

    /// What `telemetry.otlp_endpoint` has to be.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All spans so far.
    pub fn all(&self) -> Vec<Received> {
        self.spans.lock().unwrap().clone()
    }

    /// The spans of a trace so far.
    pub fn of_trace(&self, trace_id: &str) -> Vec<Received> {
        let mut spans = self.all();
        spans.retain(|received| received.trace_id() == trace_id);
        spans
    }
}

impl Drop for OtlpReceiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn take(State(spans): State<Spans>, body: Bytes) -> Result<Vec<u8>, StatusCode> {
    let request = ExportTraceServiceRequest::decode(body).map_err(|_| StatusCode::BAD_REQUEST)?;
    for resource in request.resource_spans {
        let about = resource.resource.unwrap_or_default();
        let service = attribute(&about.attributes, "service.name").unwrap_or_default();
        for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            spans.lock().unwrap().push(Received { service: service.clone(), span });
        }
    }
    Ok(ExportTraceServiceResponse::default().encode_to_vec())
}

fn attribute(attributes: &[KeyValue], name: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == name)?;
    let value = found.value.as_ref()?.value.as_ref()?;
    if let Value::StringValue(text) = value {
        return Some(text.clone());
    }
    if let Value::IntValue(number) = value { Some(number.to_string()) } else { None }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
