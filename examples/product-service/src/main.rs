//! A whole second service beside Roster's own: products that users own.
//!
//! It is an example to learn from, and the template that `cargo xtask new-service` makes further services of
//! (docs/adding-a-service.md). What is special to products is in `domain/`, `projection.rs`, `feed.rs`, `reaction.rs`
//! and `routes/`; everything else comes from the kits.

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

/// The OpenAPI document, as committed.
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
    /// Make the streams of this service, and its consumer of Roster's feed. Needs the operator's credentials.
    Provision(Config),
    /// Take requests, and keep views and feed up to date.
    Serve(Config),
    /// Write the events of the feed to standard output, one per line.
    Feed(Config),
    /// Write the OpenAPI document to standard output.
    Openapi,
    /// Write the contract of the feed as files below a folder.
    Asyncapi {
        /// The folder.
        dir: PathBuf,
    },
}

#[derive(Args)]
struct Config {
    /// File with settings; variables of the environment win over it.
    #[arg(long)]
    config: Option<PathBuf>,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Provision(config) => {
            with_settings(config, ServiceProcess::Provision, |settings| async move {
                provision(&settings).await.context("cannot provision")
            })
        }
        Command::Serve(config) => with_settings(config, ServiceProcess::Serve, serve),
        Command::Feed(config) => {
            with_settings(config, ServiceProcess::Read, |settings| async move {
                app::read_feed(&settings, |event| say(&String::from_utf8_lossy(event)))
                    .await
                    .context("cannot read the feed")
            })
        }
        Command::Openapi => document().map(|document| say(document.trim_end())),
        Command::Asyncapi { dir } => asyncapi::write(&dir),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            failed(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "the command line speaks to its caller")]
fn failed(why: &str) {
    eprintln!("{SERVICE}: {why}");
}

#[expect(clippy::print_stdout, reason = "the command line speaks to its caller")]
fn say(line: &str) {
    println!("{line}");
}

/// The document as it is committed: pretty, with an end of line.
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
    let watch = Telemetry::start(&settings.service.telemetry, SERVICE)?;
    let mut listeners = Listeners::bind(http, Some(DOCUMENT)).await?;
    // What the service starts with may have to be waited for.
    listeners.begin(&watch, &stop);
    let app = tokio::select! {
        () = stop.cancelled() => return Ok(()),
        app = App::build(&settings, &watch, &stop) => app?,
    };
    let (router, readiness) = (app.router(), stopping.readiness(app.readiness()));
    let running = TaskTracker::new();
    running.spawn(app.run(stop.clone()));
    running.close();
    listeners.serve(vec![(watch.clone(), router)], readiness, &watch, &stop).await;
    running.wait().await;
    watch.tracer.finished().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_document_is_the_codes() {
        let command =
            "cargo run -p product-service -- openapi > new.json, and move it over openapi.json";
        assert!(document().unwrap() == DOCUMENT, "write it again: {command}");
    }
}
