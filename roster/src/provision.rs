//! `roster provision`: the event log, and the first administrator.

use std::process::ExitCode;

use anyhow::{Context, bail};
use command_api::App;
use service_kit::config::Settings;
use service_kit::event_log::{
    EventLog, Limits, erasures, feed_stream, mailer_events, mailer_orders, mails_stream,
    sessions_stream, snapshots_stream, throttle_stream, users_stream,
};
use service_kit::metrics::Metrics;
use service_kit::nats;
use tokio_util::sync::CancellationToken;

use crate::cli::say;

/// The administrator that the environment asks for.
#[derive(Clone)]
pub struct Administrator {
    /// Address.
    pub email: String,
    /// Password.
    pub password: String,
}

impl Administrator {
    /// `ROSTER_ADMIN_EMAIL` and `ROSTER_ADMIN_PASSWORD`, both or neither.
    #[expect(
        clippy::disallowed_methods,
        reason = "secrets of one command, not settings of a service"
    )]
    pub fn from_env() -> anyhow::Result<Option<Self>> {
        let given = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        match (given("ROSTER_ADMIN_EMAIL"), given("ROSTER_ADMIN_PASSWORD")) {
            (Some(email), Some(password)) => Ok(Some(Self { email, password })),
            (None, None) => Ok(None),
            _ => bail!("set both ROSTER_ADMIN_EMAIL and ROSTER_ADMIN_PASSWORD, or neither"),
        }
    }
}

/// Makes the log and the first administrator. Again is as good as once.
pub async fn run(settings: Settings) -> anyhow::Result<ExitCode> {
    let administrator = Administrator::from_env()?;
    log(&settings).await?;
    say("the event log is as it must be");
    if let Some(administrator) = administrator {
        let stop = CancellationToken::new();
        let app = App::build(&settings, &Metrics::new("provision"), stop.clone()).await?;
        if app.has_administrator().await.map_err(anyhow::Error::msg)? {
            say("there is an administrator already");
        } else {
            create(&app, &administrator).await?;
            say("the first administrator is there");
        }
        stop.cancel();
    }
    Ok(ExitCode::SUCCESS)
}

/// Makes the streams, and the consumers that services are given.
pub async fn log(settings: &Settings) -> anyhow::Result<()> {
    let client = nats::connect(&settings.nats, "operator").await?;
    for spec in [
        users_stream(&settings.log),
        sessions_stream(&settings.log, &settings.sessions),
        mails_stream(&settings.log),
        throttle_stream(&settings.log),
        feed_stream(&settings.log, &settings.feed),
        snapshots_stream(&settings.log, &settings.feed),
    ] {
        let log = EventLog::new(client.clone(), spec.name(), Limits::of(settings));
        let name = spec.name();
        log.provision(&spec).await.with_context(|| format!("cannot provision {name}"))?;
    }
    for spec in [mailer_events(), mailer_orders(), erasures()] {
        let log = EventLog::new(client.clone(), spec.stream(), Limits::of(settings));
        let (name, stream) = (spec.name(), spec.stream());
        log.provision_consumer(&spec)
            .await
            .with_context(|| format!("cannot provision {name} of {stream}"))?;
    }
    Ok(())
}

/// Makes an administrator; an address in use is an error.
pub async fn create(app: &App, administrator: &Administrator) -> anyhow::Result<()> {
    let Administrator { email, password } = administrator;
    let created = app.create_administrator(email, password).await;
    if created.map_err(anyhow::Error::msg).context("cannot create the administrator")? {
        return Ok(());
    }
    bail!("the address of ROSTER_ADMIN_EMAIL belongs to a user who is no administrator")
}
