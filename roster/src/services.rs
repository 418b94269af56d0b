//! Each service alone, and what all of them have around it: listeners, readiness, signals, a clean end.

use std::net::SocketAddr;
use std::process::ExitCode;

use axum::Router;
use service_kit::config::Settings;
use service_kit::health::Readiness;
use service_kit::http::{bind, public, serve};
use service_kit::watch::Watch;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cli::say;

/// `roster command-api`
pub async fn command_api(settings: Settings) -> anyhow::Result<ExitCode> {
    let stop = stop_on_signal()?;
    let watch = Watch::start(&settings.telemetry, command_api::SERVICE)?;
    let listeners = Listeners::bind(&settings, true).await?;
    let app = command_api::App::build(&settings, &watch.metrics, stop.clone()).await?;
    let routes = app.router().merge(app.key_routes());
    let services = vec![(watch.clone(), routes)];
    listeners.serve(services, app.readiness(), &watch, &stop).await;
    app.finished().await;
    watch.tracer.finished().await;
    Ok(ExitCode::SUCCESS)
}

/// `roster query-api`
pub async fn query_api(settings: Settings) -> anyhow::Result<ExitCode> {
    let stop = stop_on_signal()?;
    let watch = Watch::start(&settings.telemetry, query_api::SERVICE)?;
    let listeners = Listeners::bind(&settings, true).await?;
    let app = query_api::App::build(&settings, &watch.metrics, stop.clone()).await?;
    let routes = app.router().merge(app.key_routes());
    let services = vec![(watch.clone(), routes)];
    listeners.serve(services, app.readiness(), &watch, &stop).await;
    app.finished().await;
    watch.tracer.finished().await;
    Ok(ExitCode::SUCCESS)
}

/// `roster projector`
pub async fn projector(settings: Settings) -> anyhow::Result<ExitCode> {
    let stop = stop_on_signal()?;
    let watch = Watch::start(&settings.telemetry, projector::SERVICE)?;
    let listeners = Listeners::bind(&settings, false).await?;
    let app = projector::App::build(&settings, &watch).await?;
    let readiness = app.readiness();
    let tasks = TaskTracker::new();
    tasks.spawn(app.run(stop.clone()));
    listeners.serve(Vec::new(), readiness, &watch, &stop).await;
    tasks.close();
    tasks.wait().await;
    watch.tracer.finished().await;
    Ok(ExitCode::SUCCESS)
}

/// `roster reactor`
pub async fn reactor(settings: Settings) -> anyhow::Result<ExitCode> {
    let stop = stop_on_signal()?;
    let watch = Watch::start(&settings.telemetry, reactor::SERVICE)?;
    let listeners = Listeners::bind(&settings, false).await?;
    let app = reactor::App::build(&settings, &watch).await?;
    let readiness = app.readiness();
    let tasks = TaskTracker::new();
    tasks.spawn(app.run(stop.clone()));
    listeners.serve(Vec::new(), readiness, &watch, &stop).await;
    tasks.close();
    tasks.wait().await;
    watch.tracer.finished().await;
    Ok(ExitCode::SUCCESS)
}

/// The open listeners of a process.
pub struct Listeners {
    public: Option<TcpListener>,
    private: TcpListener,
}

impl Listeners {
    /// Opens the private listener, and the public one where there are routes for it.
    pub async fn bind(settings: &Settings, with_public: bool) -> anyhow::Result<Self> {
        let public = if with_public { Some(bind(settings.http.listen).await?) } else { None };
        Ok(Self { public, private: bind(settings.http.private_listen).await? })
    }

    /// Address of the public listener.
    pub fn public_addr(&self) -> anyhow::Result<Option<SocketAddr>> {
        Ok(self.public.as_ref().map(TcpListener::local_addr).transpose()?)
    }

    /// Address of the private listener.
    pub fn private_addr(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.private.local_addr()?)
    }

    /// Says where it listens and serves until `stop`, then lets requests under way finish.
    async fn serve(
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
        if let Some(listener) = self.public {
            serving.spawn(serve(listener, public(process, services), stop.clone()));
        }
        let private = readiness.routes().merge(process.metrics.routes());
        serving.spawn(serve(self.private, private, stop.clone()));
        serving.close();
        serving
    }
}

/// A token that SIGINT and SIGTERM cancel. A second signal ends the process at once.
pub fn stop_on_signal() -> anyhow::Result<CancellationToken> {
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
