//! The listener: limits on connections, heads and buffers, on slow clients, and a graceful shutdown.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::response::Response;
use http::header::{CONNECTION, EXPECT};
use http::{HeaderValue, StatusCode};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tower::{Layer, Service, ServiceExt};
use tower_http::normalize_path::NormalizePathLayer;

use super::client_address::TrustedProxies;
use super::connections::{ConnectionLimits, Connections, Seat};
use super::socket::{Progress, Socket, SocketLimits};
use super::unread::Shared;
use crate::config::{Http, Settings};

/// Most bytes that are buffered per connection and direction: a head, or a piece of a body.
const BUFFER_BYTES_MAX: usize = 64 * 1024;
/// Time for running requests when the service is asked to stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after a failed accept (mostly because file descriptors ran out).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The listener could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is in use or not available.
    #[error("cannot listen on {address}{setting}")]
    Address {
        /// The address.
        address: String,
        /// The setting that chose it, in words.
        setting: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// A setting is invalid.
    #[error("{0}")]
    Settings(String),
}

/// Limits of a listener.
#[derive(Debug, Clone)]
pub struct Serving {
    connections: ConnectionLimits,
    socket: SocketLimits,
}

impl Serving {
    /// The values of `defaults.toml`, for a program without settings of its own.
    ///
    /// # Errors
    /// As [`Serving::of`].
    pub fn defaults() -> Result<Self, ServeError> {
        let settings = Settings::merge("", []);
        Self::of(&settings.map_err(|error| ServeError::Settings(error.to_string()))?.http)
    }

    /// The values of the settings.
    ///
    /// # Errors
    /// [`ServeError::Settings`]: the networks of proxies are invalid.
    pub fn of(settings: &Http) -> Result<Self, ServeError> {
        let total = usize::try_from(settings.connections_max).unwrap_or(usize::MAX);
        let per_network = usize::try_from(settings.connections_per_network_max);
        Ok(Self {
            connections: ConnectionLimits {
                total,
                per_network: per_network.unwrap_or(usize::MAX),
                proxies: TrustedProxies::parse(&settings.trusted_proxies)
                    .map_err(|why| ServeError::Settings(format!("http.trusted_proxies: {why}")))?,
            },
            socket: SocketLimits {
                idle: Duration::from_secs(settings.idle_timeout_s),
                head: Duration::from_secs(settings.head_timeout_s),
                answer: Duration::from_secs(settings.answer_timeout_s),
            },
        })
    }
}

impl ServeError {
    /// Adds the setting that chose the address: each process of a host needs an address of its own.
    #[must_use]
    pub fn set_by(self, key: &str) -> Self {
        match self {
            Self::Address { address, source, .. } => {
                let setting = format!(", which is {key}: each process of a host needs its own");
                Self::Address { address, setting, source }
            }
            Self::Settings(why) => Self::Settings(why),
        }
    }
}

/// Opens a listener; port 0 takes a free one.
///
/// # Errors
/// [`ServeError`] names the address that is in use or not available.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).await.map_err(|source| ServeError::Address {
        address: address.to_string(),
        setting: String::new(),
        source,
    })
}

/// Serves until `stop`, then lets running requests finish. A trailing slash is ignored.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    serving: Serving,
    stop: CancellationToken,
) {
    let service = NormalizePathLayer::trim_trailing_slash().layer(router);
    let graceful = GracefulShutdown::new();
    let connections = Connections::within(serving.connections);
    let tasks = tokio_util::task::TaskTracker::new();
    loop {
        let (stream, peer) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let Some(seat) = connections.admit(peer.ip()) else {
            tracing::debug!(
                "a connection is rejected: all connections of its network or of the listener are serving requests"
            );
            continue;
        };
        let give_way = seat.give_way.clone();
        let connection =
            graceful.watch(connection(stream, peer, service.clone(), serving.socket, seat));
        tasks.spawn(async move {
            tokio::select! {
                // A client that disconnects is no failure of the service.
                _ = connection => {}
                () = give_way.cancelled() => {}
            }
        });
    }
    drop(listener);
    if timeout(DRAIN_TIMEOUT, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests that were still running were cancelled");
    }
}

/// One connection, from its first request to its last.
fn connection<S>(
    stream: TcpStream,
    peer: SocketAddr,
    service: S,
    limits: SocketLimits,
    seat: Seat,
) -> impl hyper_util::server::graceful::GracefulConnection<Error = hyper::Error>
where
    S: Service<Request, Response = Response, Error = std::convert::Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    let _ = stream.set_nodelay(true);
    let (progress, seat) = (Arc::new(Progress::default()), Arc::new(seat));
    let socket = Socket::new(stream, limits, progress.clone());
    let handle =
        hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
            let (service, seat, progress) = (service.clone(), seat.clone(), progress.clone());
            async move {
                progress.begin();
                seat.works();
                let answer = answer(service, request, peer, seat.clone()).await;
                seat.rests();
                progress.end();
                answer
            }
        });
    hyper::server::conn::http1::Builder::new()
        // The socket has time limits of its own.
        .header_read_timeout(None)
        .max_buf_size(BUFFER_BYTES_MAX)
        .serve_connection(socket, handle)
}

async fn answer<S>(
    service: S,
    request: hyper::Request<hyper::body::Incoming>,
    peer: SocketAddr,
    seat: Arc<Seat>,
) -> Result<Response, std::convert::Infallible>
where
    S: Service<Request, Response = Response, Error = std::convert::Infallible>,
{
    let (mut parts, body) = request.into_parts();
    parts.extensions.insert(ConnectInfo(peer));
    let waits_for_continue = parts.headers.contains_key(EXPECT);
    let body = Shared::of(body, seat);
    let request = Request::from_parts(parts, Body::new(body.clone()));
    let mut response = service.oneshot(request).await?;
    let was_slow = response.status() == StatusCode::REQUEST_TIMEOUT;
    if !body.read_on(waits_for_continue, was_slow).await {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}
