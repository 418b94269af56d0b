//! Each service alone.

use std::process::ExitCode;
use std::time::Duration;

use service_kit::config::{Deployment, Settings};
use service_kit::running::{Listeners, Stop};
use service_kit::telemetry::Telemetry;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::openapi::DOCUMENT;
use crate::{core_dumps, schemas};

/// What every service has before its own parts.
struct Started {
    stop: Stop,
    watch: Telemetry,
    listeners: Listeners,
}

async fn start(
    settings: &Settings,
    service: &'static str,
    described: Option<&'static str>,
) -> anyhow::Result<Started> {
    // Before anything secret is read. Developers may want to attach a debugger.
    if settings.deployment == Deployment::Production {
        core_dumps::disable();
    }
    // Only what takes requests has somebody to tell before it stops.
    let delay_ms = described.map_or(0, |_| settings.http.stop_delay_ms);
    let stop = Stop::on_signal(Duration::from_millis(delay_ms))?;
    let watch = Telemetry::start(&settings.telemetry, service)?;
    let listeners = Listeners::bind(&settings.http, described).await?;
    Ok(Started { stop, watch, listeners })
}

/// What is built, unless the process is told to stop before it is: what a service starts with may be waited for.
async fn unless<T, E>(
    stop: &CancellationToken,
    building: impl Future<Output = Result<T, E>>,
) -> Result<Option<T>, E> {
    tokio::select! {
        () = stop.cancelled() => Ok(None),
        built = building => built.map(Some),
    }
}

/// `roster command-api`
pub async fn command_api(settings: Settings) -> anyhow::Result<ExitCode> {
    let Started { stop, watch, mut listeners } =
        start(&settings, command_api::SERVICE, Some(DOCUMENT)).await?;
    listeners.begin(&watch, &stop.token);
    let building = Box::pin(command_api::App::build(&settings, &watch.metrics, stop.token.clone()));
    let Some(app) = unless(&stop.token, building).await? else { return Ok(ExitCode::SUCCESS) };
    let routes = app.router().merge(app.key_routes()).merge(schemas::routes()?);
    let services = vec![(watch.clone(), routes)];
    listeners.serve(services, stop.readiness(app.readiness()), &watch, &stop.token).await;
    app.finished().await;
    watch.tracer.finished().await;
    Ok(ExitCode::SUCCESS)
}

/// `roster query-api`
pub async fn query_api(settings: Settings) -> anyhow::Result<ExitCode> {
    let Started { stop, watch, mut listeners } =
        start(&settings, query_api::SERVICE, Some(DOCUMENT)).await?;
    listeners.begin(&watch, &stop.token);
    let building = Box::pin(query_api::App::build(&settings, &watch.metrics, stop.token.clone()));
    let Some(app) = unless(&stop.token, building).await? else { return Ok(ExitCode::SUCCESS) };
    let routes = app.router().merge(app.key_routes()).merge(schemas::routes()?);
    let services = vec![(watch.clone(), routes)];
    listeners.serve(services, stop.readiness(app.readiness()), &watch, &stop.token).await;
    app.finished().await;
    watch.tracer.finished().await;
    Ok(ExitCode::SUCCESS)
}

/// `roster projector`
pub async fn projector(settings: Settings) -> anyhow::Result<ExitCode> {
    let Started { stop, watch, mut listeners } = start(&settings, projector::SERVICE, None).await?;
    listeners.begin(&watch, &stop.token);
    let building = Box::pin(projector::App::build(&settings, &watch));
    let Some(app) = unless(&stop.token, building).await? else { return Ok(ExitCode::SUCCESS) };
    let readiness = app.readiness();
    let tasks = TaskTracker::new();
    tasks.spawn(app.run(stop.token.clone()));
    listeners.serve(Vec::new(), stop.readiness(readiness), &watch, &stop.token).await;
    tasks.close();
    tasks.wait().await;
    watch.tracer.finished().await;
    Ok(ExitCode::SUCCESS)
}

/// `roster reactor`
pub async fn reactor(settings: Settings) -> anyhow::Result<ExitCode> {
    let Started { stop, watch, mut listeners } = start(&settings, reactor::SERVICE, None).await?;
    listeners.begin(&watch, &stop.token);
    let building = Box::pin(reactor::App::build(&settings, &watch));
    let Some(app) = unless(&stop.token, building).await? else { return Ok(ExitCode::SUCCESS) };
    let readiness = app.readiness();
    let tasks = TaskTracker::new();
    tasks.spawn(app.run(stop.token.clone()));
    listeners.serve(Vec::new(), stop.readiness(readiness), &watch, &stop.token).await;
    tasks.close();
    tasks.wait().await;
    watch.tracer.finished().await;
    Ok(ExitCode::SUCCESS)
}
