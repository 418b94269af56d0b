//! A complete peer service: products that users own.
//!
//! It is an example to learn from, and the template from which `cargo xtask new-service` generates new services
//! (docs/adding-a-service.md). The code that is specific to products is in `domain/`, `projection.rs`, `feed.rs`,
//! `reaction.rs` and `routes/`; everything else comes from the kits.

mod app;
mod asyncapi;
mod domain;
mod feed;
mod projection;
mod reaction;
mod routes;
mod settings;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use service_kit::logging;
use service_kit::running::{Listeners, Stop};
use service_kit::telemetry::Telemetry;
use tokio_util::task::TaskTracker;
use view_kit::ServiceProcess;

use app::{App, provision};
use settings::{Loaded, SERVICE, Settings};

/// The committed OpenAPI document.
const DOCUMENT: &str = include_str!("../openapi.json");

/// Products of Roster's users.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Create the streams of this service and its consumer of Roster's feed. Needs the operator's credentials.
    Provision(Config),
    /// Serve requests, and keep views and feed up to date.
    Serve(Config),
    /// Print all events of the feed, one per line.
    Feed(Config),
    /// Print the OpenAPI document.
    Openapi,
    /// Write the contract of the feed into a folder.
    Asyncapi {
        /// The folder.
        dir: PathBuf,
    },
}

#[derive(Args)]
struct Config {
    /// File with settings. Environment variables override it.
    #[arg(long)]
    config: Option<PathBuf>,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Provision(config) => {
            with_settings(config, ServiceProcess::Provision, |settings| async move {
                provision(&settings).await.context("cannot provision")
            })
        }
        Command::Serve(config) => with_settings(config, ServiceProcess::Serve, serve),
        Command::Feed(config) => {
            with_settings(config, ServiceProcess::Read, |settings| async move {
                app::read_feed(&settings, |event| print_line(&String::from_utf8_lossy(event)))
                    .await
                    .context("cannot read the feed")
            })
        }
        Command::Openapi => document().map(|document| print_line(document.trim_end())),
        Command::Asyncapi { dir } => asyncapi::write(&dir),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print_error(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "a command line prints its output")]
fn print_error(error: &str) {
    eprintln!("{SERVICE}: {error}");
}

#[expect(clippy::print_stdout, reason = "a command line prints its output")]
fn print_line(line: &str) {
    println!("{line}");
}

/// The document as it is committed: pretty-printed, with a final newline.
fn document() -> anyhow::Result<String> {
    Ok(routes::openapi().to_pretty_json()? + "\n")
}

fn with_settings<F>(
    config: Config,
    process: ServiceProcess,
    work: impl FnOnce(Settings) -> F,
) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>>,
{
    let Loaded { settings, warnings } = Settings::load(config.config.as_deref(), process)?;
    logging::start(&settings.service.telemetry).map_err(anyhow::Error::msg)?;
    logging::warn_insecure(&warnings);
    tokio::runtime::Runtime::new()?.block_on(work(settings))
}

async fn serve(settings: Settings) -> anyhow::Result<()> {
    let http = &settings.service.http;
    let stopping = Stop::on_signal(Duration::from_millis(http.stop_delay_ms))?;
    let stop = stopping.token.clone();
    let telemetry = Telemetry::start(&settings.service.telemetry, SERVICE)?;
    let mut listeners = Listeners::bind(http, Some(DOCUMENT)).await?;
    // Serve health from the start: connecting may take a while.
    listeners.begin(&telemetry, &stop);
    let app = tokio::select! {
        () = stop.cancelled() => return Ok(()),
        app = App::build(&settings, &telemetry, &stop) => app?,
    };
    let (router, readiness) = (app.router(), stopping.readiness(app.readiness()));
    let running = TaskTracker::new();
    running.spawn(app.run(stop.clone()));
    running.close();
    listeners.serve(vec![(telemetry.clone(), router)], readiness, &telemetry, &stop).await;
    running.wait().await;
    telemetry.tracer.finished().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_document_matches_the_code() {
        let command =
            "cargo run -p product-service -- openapi > new.json, then move it over openapi.json";
        assert!(document().unwrap() == DOCUMENT, "regenerate it: {command}");
    }
}
