//! Each service alone.

use std::process::ExitCode;

use service_kit::config::Settings;
use service_kit::running::{Listeners, stop_on_signal};
use service_kit::watch::Watch;
use tokio_util::task::TaskTracker;

use crate::openapi::DOCUMENT;

/// `roster command-api`
pub async fn command_api(settings: Settings) -> anyhow::Result<ExitCode> {
    let stop = stop_on_signal()?;
    let watch = Watch::start(&settings.telemetry, command_api::SERVICE)?;
    let listeners = Listeners::bind(&settings.http, Some(DOCUMENT)).await?;
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
    let listeners = Listeners::bind(&settings.http, Some(DOCUMENT)).await?;
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
    let listeners = Listeners::bind(&settings.http, None).await?;
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
    let listeners = Listeners::bind(&settings.http, None).await?;
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
