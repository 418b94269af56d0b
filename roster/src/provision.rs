//! `roster provision`: the event log, and the first administrator.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use command_api::App;
use service_kit::config::Settings;
use service_kit::event_log::{EventLog, Limits, users_stream};
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
        let app = App::build(&settings, stop.clone()).await?;
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

/// Makes the streams.
pub async fn log(settings: &Settings) -> anyhow::Result<()> {
    let client = nats::connect(&settings.nats, "operator").await?;
    let limits = Limits {
        request_timeout: Duration::from_millis(settings.nats.request_timeout_ms),
        append_deadline: Duration::from_millis(settings.log.append_deadline_ms),
    };
    let log = EventLog::new(client, events::subjects::USERS_STREAM, limits);
    log.provision(&users_stream(settings.log.replicas, settings.log.bytes_max))
        .await
        .context("cannot provision the event log")
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
