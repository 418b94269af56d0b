//! What every process has around its work: listeners, readiness, signals, a clean end.

use std::io;
use std::net::SocketAddr;

use axum::Router;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Http;
use crate::health::Readiness;
use crate::http::{ServeError, bind, public, serve};
use crate::watch::Watch;

/// The open listeners of a process.
pub struct Listeners {
    public: Option<(TcpListener, &'static str)>,
    private: TcpListener,
}

impl Listeners {
    /// Opens the private listener, and the public one where there are routes for it, which the OpenAPI document
    /// `described` describes.
    ///
    /// # Errors
    /// [`ServeError`] names the address and the setting.
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
        Ok(Self { public, private })
    }

    /// Address of the public listener.
    ///
    /// # Errors
    /// The system's.
    pub fn public_addr(&self) -> io::Result<Option<SocketAddr>> {
        self.public.as_ref().map(|(listener, _)| listener.local_addr()).transpose()
    }

    /// Address of the private listener.
    ///
    /// # Errors
    /// The system's.
    pub fn private_addr(&self) -> io::Result<SocketAddr> {
        self.private.local_addr()
    }

    /// Says where it listens and serves until `stop`, then lets requests under way finish.
    pub async fn serve(
        self,
        services: Vec<(Watch, Router)>,
        readiness: Readiness,
        process: &Watch,
        stop: &CancellationToken,
    ) {
        let mut line = "ready".to_owned();
        if let Ok(Some(address)) = self.public_addr() {
            line.push_str(&format!(" url=http://{address}"));
        }
        if let Ok(address) = self.private_addr() {
            line.push_str(&format!(" private=http://{address}"));
        }
        let serving = self.start(services, readiness, process, stop);
        say(&line);
        serving.wait().await;
    }

    /// Starts to serve; the tracker is done when the last request is.
    pub fn start(
        self,
        services: Vec<(Watch, Router)>,
        readiness: Readiness,
        process: &Watch,
        stop: &CancellationToken,
    ) -> TaskTracker {
        let serving = TaskTracker::new();
        if let Some((listener, document)) = self.public {
            serving.spawn(serve(listener, public(process, document, services), stop.clone()));
        }
        let private = readiness.routes().merge(process.metrics.routes());
        serving.spawn(serve(self.private, private, stop.clone()));
        serving.close();
        serving
    }
}

/// What whoever started the process waits for, on standard output.
#[expect(clippy::print_stdout, reason = "a process that serves speaks to whoever started it")]
fn say(text: &str) {
    println!("{text}");
}

/// A token that SIGINT and SIGTERM cancel. A second signal ends the process at once.
///
/// # Errors
/// The system's: signals cannot be waited for.
pub fn stop_on_signal() -> io::Result<CancellationToken> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let stop = CancellationToken::new();
    let told = stop.clone();
    #[expect(
        clippy::disallowed_methods,
        reason = "lives as long as the process: it waits for its end"
    )]
    tokio::spawn(async move {
        let mut signals = 0;
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            signals += 1;
            if signals > 1 {
                std::process::exit(130);
            }
            tracing::info!("stopping");
            told.cancel();
        }
    });
    Ok(stop)
}
