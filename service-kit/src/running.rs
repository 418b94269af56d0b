//! The frame around every process: listeners, readiness, signals, a clean shutdown.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Http;
use crate::health::{Readiness, routes};
use crate::http::{Origins, ServeError, Serving, bind, public, serve};
use crate::telemetry::Telemetry;

/// The open listeners of a process.
pub struct Listeners {
    public: Option<(TcpListener, &'static str)>,
    /// Taken when it is served.
    private: Option<TcpListener>,
    private_addr: SocketAddr,
    serving: Serving,
    origins: Origins,
    if_match_required: bool,
    /// The checks of `/readyz`, once they are known.
    readiness: Arc<OnceLock<Readiness>>,
    tasks: TaskTracker,
}

impl Listeners {
    /// Opens the private listener, and the public one if there are routes for it, which the OpenAPI document
    /// `described` describes.
    ///
    /// # Errors
    /// [`ServeError`] names the address and the setting, or the invalid settings.
    pub async fn bind(
        settings: &Http,
        described: Option<&'static str>,
    ) -> Result<Self, ServeError> {
        let public = match described {
            Some(document) => {
                let listening = bind(settings.listen).await;
                Some((listening.map_err(|error| error.set_by("http.listen"))?, document))
            }
            None => None,
        };
        let listening = bind(settings.private_listen).await;
        let private = listening.map_err(|error| error.set_by("http.private_listen"))?;
        let private_addr = private.local_addr().unwrap_or(settings.private_listen);
        let serving = Serving::of(settings)?;
        let origins = Origins::parse(&settings.cors_origins)
            .map_err(|why| ServeError::Settings(format!("http.cors_origins: {why}")))?;
        let private = Some(private);
        let (readiness, tasks) = (Arc::default(), TaskTracker::new());
        let if_match_required = settings.if_match_required;
        Ok(Self {
            public,
            private,
            private_addr,
            serving,
            origins,
            if_match_required,
            readiness,
            tasks,
        })
    }

    /// Address of the public listener.
    ///
    /// # Errors
    /// The system's.
    pub fn public_addr(&self) -> io::Result<Option<SocketAddr>> {
        self.public.as_ref().map(|(listener, _)| listener.local_addr()).transpose()
    }

    /// Address of the private listener.
    #[must_use]
    pub const fn private_addr(&self) -> SocketAddr {
        self.private_addr
    }

    /// Serves the private listener from now on: alive, with metrics, and not ready until [`Listeners::start`]. For
    /// services that wait for others when they start.
    pub fn begin(&mut self, process: &Telemetry, stop: &CancellationToken) {
        let Some(private) = self.private.take() else { return };
        let routes = routes(self.readiness.clone()).merge(process.metrics.routes());
        self.tasks.spawn(serve(private, routes, self.serving.clone(), stop.clone()));
    }

    /// Prints where it listens, serves until `stop`, then lets running requests finish.
    pub async fn serve(
        self,
        services: Vec<(Telemetry, Router)>,
        readiness: Readiness,
        process: &Telemetry,
        stop: &CancellationToken,
    ) {
        let mut line = "ready".to_owned();
        if let Ok(Some(address)) = self.public_addr() {
            line.push_str(&format!(" url=http://{address}"));
        }
        line.push_str(&format!(" private=http://{}", self.private_addr));
        let serving = self.start(services, readiness, process, stop);
        say(&line);
        serving.wait().await;
    }

    /// Starts serving; the tracker is done when the last request is.
    pub fn start(
        mut self,
        services: Vec<(Telemetry, Router)>,
        readiness: Readiness,
        process: &Telemetry,
        stop: &CancellationToken,
    ) -> TaskTracker {
        // Set once: `start` takes the listeners.
        let _ = self.readiness.set(readiness);
        self.begin(process, stop);
        if let Some((listener, document)) = self.public {
            let routes = public(process, document, services, &self.origins, self.if_match_required);
            self.tasks.spawn(serve(listener, routes, self.serving, stop.clone()));
        }
        self.tasks.close();
        self.tasks
    }
}

/// The line on standard output that the parent process waits for.
#[expect(clippy::print_stdout, reason = "a process that serves speaks to whoever started it")]
fn say(text: &str) {
    println!("{text}");
}

/// A token that SIGINT and SIGTERM cancel. A second signal ends the process at once.
///
/// # Errors
/// The system's: signals cannot be waited for.
pub fn stop_on_signal() -> io::Result<CancellationToken> {
    Stop::on_signal(Duration::ZERO).map(|stop| stop.token)
}

/// The end of a process, in two steps: clients learn that it stops before it rejects their requests.
#[derive(Debug, Clone)]
pub struct Stop {
    announced: CancellationToken,
    /// Cancelled when the work has to end.
    pub token: CancellationToken,
}

impl Stop {
    /// SIGINT and SIGTERM announce the end, which comes after `delay`. A second signal ends the process at once.
    ///
    /// # Errors
    /// The system's: signals cannot be received.
    pub fn on_signal(delay: Duration) -> io::Result<Self> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let stop = Self { announced: CancellationToken::new(), token: CancellationToken::new() };
        let told = stop.clone();
        #[expect(
            clippy::disallowed_methods,
            reason = "lives as long as the process: it waits for its end"
        )]
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    () = told.passed(delay) => {
                        told.token.cancel();
                        continue;
                    }
                }
                if told.announced.is_cancelled() {
                    std::process::exit(130);
                }
                tracing::info!(delay_ms = delay.as_millis(), "stopping");
                told.announced.cancel();
            }
        });
        Ok(stop)
    }

    /// Waits for the end of the delay, once.
    async fn passed(&self, delay: Duration) {
        self.announced.cancelled().await;
        if self.token.is_cancelled() {
            std::future::pending::<()>().await;
        }
        sleep(delay).await;
    }

    /// Adds the check that no end was announced.
    #[must_use]
    pub fn readiness(&self, readiness: Readiness) -> Readiness {
        let announced = self.announced.clone();
        readiness.with("stop", move || {
            let stopping = announced.is_cancelled();
            async move { if stopping { Err("the service is stopping".to_owned()) } else { Ok(()) } }
        })
    }
}
