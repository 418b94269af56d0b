//! `roster provision`: the event log, and the first administrator.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use async_nats::Client;
use command_api::{App, Made, NewAdministrator};
use serde_json::json;
use service_kit::config::{Settings, secret_in};
use service_kit::event_log::{
    ConsumerSpec, EventLog, Limits, ProvisionError, StreamSpec, erasures, feed_stream,
    mailer_events, mailer_notices, mailer_orders, mails_stream, operations_stream, security_stream,
    sessions_stream, snapshots_stream, throttle_closed_stream, throttle_counts_stream,
    throttle_stream, users_stream,
};
use service_kit::metrics::Metrics;
use service_kit::nats;
use tokio_util::sync::CancellationToken;

use crate::admin;
use crate::audit::{self, Ended, Operation};
use crate::cli::{ProvisionArgs, say};

/// What `provision` says where nobody can administer.
const NO_ADMINISTRATOR: &str = "there is no administrator yet: set ROSTER_ADMIN_EMAIL and \
    ROSTER_ADMIN_PASSWORD and run this again";

/// The variable with the name of the file with the first administrator's password.
pub const PASSWORD_FILE: &str = "ROSTER_ADMIN_PASSWORD_FILE";

/// The file with the first administrator's password, if the environment names one.
pub fn password_file() -> Option<PathBuf> {
    std::env::var_os(PASSWORD_FILE).filter(|file| !file.is_empty()).map(PathBuf::from)
}

/// The administrator that the environment asks for.
#[derive(Clone)]
pub struct Administrator {
    /// Address.
    pub email: String,
    /// Password.
    pub password: String,
}

impl Administrator {
    /// `ROSTER_ADMIN_EMAIL`, and `ROSTER_ADMIN_PASSWORD` or the file that `ROSTER_ADMIN_PASSWORD_FILE` names; both or
    /// neither.
    #[expect(
        clippy::disallowed_methods,
        reason = "secrets of one command, not settings of a service"
    )]
    pub fn from_env() -> anyhow::Result<Option<Self>> {
        let given = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let password = match (given("ROSTER_ADMIN_PASSWORD"), password_file()) {
            (Some(_), Some(_)) => {
                bail!("set ROSTER_ADMIN_PASSWORD or ROSTER_ADMIN_PASSWORD_FILE, not both")
            }
            (None, Some(file)) => {
                Some(secret_in(&file).map_err(|why| anyhow::anyhow!("{PASSWORD_FILE}: {why}"))?)
            }
            (password, None) => password,
        };
        match (given("ROSTER_ADMIN_EMAIL"), password) {
            (Some(email), Some(password)) => Ok(Some(Self { email, password })),
            (None, None) => Ok(None),
            _ => bail!(
                "set both ROSTER_ADMIN_EMAIL and ROSTER_ADMIN_PASSWORD (or ROSTER_ADMIN_PASSWORD_FILE), or neither"
            ),
        }
    }
}

/// Makes the log and the first administrator. Again is as good as once. With `--check` it changes nothing, and the
/// exit code is 1 when it would.
pub async fn run(settings: Settings, args: ProvisionArgs) -> anyhow::Result<ExitCode> {
    if args.check {
        return check(&settings, args.json).await;
    }
    let administrator = Administrator::from_env()?;
    let client = nats::connect(&settings.nats, "operator").await?;
    let changing = differing(&settings, &client).await?;
    // Before anything is done there must be a place for writing down who does it.
    stream(&settings, &client, &operations_stream(&settings.log, &settings.audit)).await?;
    let work = async {
        let mut done = work(&settings, administrator).await?;
        if args.new_lineage {
            let log = |stream: &str| EventLog::new(client.clone(), stream, Limits::of(&settings));
            command_api::begin_lineage(&log, false)
                .await
                .context("cannot end what is of before")?;
            done.push("another history of the log has begun: everybody logs in again");
        }
        if args.json {
            say(&json!({ "done": done }).to_string());
        } else {
            done.iter().for_each(|line| say(line));
        }
        let changed: Vec<_> = changing.iter().map(Differing::name).collect();
        let result = json!({ "done": done, "changed": changed });
        Ok(Ended { code: ExitCode::SUCCESS, result })
    };
    let arguments = if args.new_lineage { json!({ "new_lineage": true }) } else { json!({}) };
    audit::over(&settings, &client, Operation::Provision, arguments, work).await
}

async fn work(
    settings: &Settings,
    administrator: Option<Administrator>,
) -> anyhow::Result<Vec<&'static str>> {
    log(settings).await?;
    let mut done = vec!["the event log is as it must be"];
    if let Some(administrator) = administrator {
        let stop = CancellationToken::new();
        let app = App::build(settings, &Metrics::new("provision"), stop.clone()).await?;
        if app.has_administrator().await.map_err(anyhow::Error::msg)? {
            done.push("there is an administrator already");
        } else {
            create(&app, &administrator).await?;
            done.push("the first administrator is there");
        }
        stop.cancel();
    } else {
        let client = nats::connect(&settings.nats, "operator").await?;
        if admin::count(settings, &client).await? == 0 {
            done.push(NO_ADMINISTRATOR);
        }
    }
    Ok(done)
}

/// Every stream as the settings want it.
fn streams(settings: &Settings) -> [StreamSpec; 10] {
    [
        operations_stream(&settings.log, &settings.audit),
        users_stream(&settings.log),
        sessions_stream(&settings.log, &settings.sessions),
        mails_stream(&settings.log),
        throttle_stream(&settings.log),
        throttle_closed_stream(&settings.log),
        throttle_counts_stream(&settings.log),
        security_stream(&settings.log, &settings.security),
        feed_stream(&settings.log, &settings.feed),
        snapshots_stream(&settings.log, &settings.feed),
    ]
}

/// Every consumer that a service is given.
fn consumers() -> [ConsumerSpec; 4] {
    [mailer_events(), mailer_orders(), mailer_notices(), erasures()]
}

/// Makes the streams, and the consumers that services are given.
pub async fn log(settings: &Settings) -> anyhow::Result<()> {
    beside(settings, &[]).await
}

/// The same without some of the streams, which are there.
pub async fn beside(settings: &Settings, without: &[&str]) -> anyhow::Result<()> {
    let client = nats::connect(&settings.nats, "operator").await?;
    for spec in streams(settings) {
        if !without.contains(&spec.name()) {
            stream(settings, &client, &spec).await?;
        }
    }
    for spec in consumers() {
        let log = EventLog::new(client.clone(), spec.stream(), Limits::of(settings));
        let (name, stream) = (spec.name(), spec.stream());
        log.provision_consumer(&spec)
            .await
            .with_context(|| format!("cannot provision {name} of {stream}"))?;
    }
    Ok(())
}

async fn stream(settings: &Settings, client: &Client, spec: &StreamSpec) -> anyhow::Result<()> {
    let log = EventLog::new(client.clone(), spec.name(), Limits::of(settings));
    log.provision(spec).await.with_context(|| format!("cannot provision {}", spec.name()))
}

/// The names of the streams.
pub fn names(settings: &Settings) -> Vec<String> {
    streams(settings).iter().map(|spec| spec.name().to_owned()).collect()
}

/// The names of the consumers of a stream.
pub fn consumer_names(stream: &str) -> Vec<String> {
    let of_it = consumers().into_iter().filter(|spec| spec.stream() == stream);
    of_it.map(|spec| spec.name().to_owned()).collect()
}

/// What differs in a stream, or in a consumer of it.
pub struct Differing {
    stream: String,
    consumer: Option<String>,
    faults: Vec<String>,
}

impl Differing {
    /// The stream, and the consumer where it is one.
    pub fn name(&self) -> String {
        match &self.consumer {
            Some(consumer) => format!("{} {consumer}", self.stream),
            None => self.stream.clone(),
        }
    }

    /// Every difference, in words.
    pub fn faults(&self) -> &[String] {
        &self.faults
    }
}

/// Looks at everything that [`log`] makes.
pub async fn differing(settings: &Settings, client: &Client) -> anyhow::Result<Vec<Differing>> {
    let mut found = Vec::new();
    for spec in streams(settings) {
        let log = EventLog::new(client.clone(), spec.name(), Limits::of(settings));
        let faults = faults(log.differences(&spec).await)?;
        found.push(Differing { stream: spec.name().to_owned(), consumer: None, faults });
    }
    for spec in consumers() {
        let log = EventLog::new(client.clone(), spec.stream(), Limits::of(settings));
        let faults = faults(log.verify_consumer(&spec).await.map(|_| Vec::new()))?;
        let (stream, consumer) = (spec.stream().to_owned(), Some(spec.name().to_owned()));
        found.push(Differing { stream, consumer, faults });
    }
    found.retain(|differing| !differing.faults.is_empty());
    Ok(found)
}

async fn check(settings: &Settings, as_json: bool) -> anyhow::Result<ExitCode> {
    let client = nats::connect(&settings.nats, "operator").await?;
    let found = differing(settings, &client).await?;
    if as_json {
        let items: Vec<_> = found
            .iter()
            .map(|Differing { stream, consumer, faults }| {
                json!({ "stream": stream, "consumer": consumer, "differences": faults })
            })
            .collect();
        say(&json!({ "items": items }).to_string());
    } else {
        for differing in &found {
            let name = differing.name();
            differing.faults.iter().for_each(|fault| say(&format!("{name}: {fault}")));
        }
        if found.is_empty() {
            say("the event log is as it must be");
        }
    }
    Ok(if found.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What differs, in words; an error when nobody knows.
fn faults(looked: Result<Vec<String>, ProvisionError>) -> anyhow::Result<Vec<String>> {
    match looked {
        Ok(faults) => Ok(faults),
        Err(ProvisionError::Missing { .. } | ProvisionError::MissingConsumer { .. }) => {
            Ok(vec!["does not exist".to_owned()])
        }
        Err(
            ProvisionError::Different { faults, .. }
            | ProvisionError::DifferentConsumer { faults, .. },
        ) => Ok(faults),
        Err(error @ (ProvisionError::Read(_) | ProvisionError::ServerTooOld { .. })) => {
            Err(error.into())
        }
    }
}

/// Makes an administrator; an address in use is an error.
pub async fn create(app: &App, administrator: &Administrator) -> anyhow::Result<()> {
    let Administrator { email, password } = administrator;
    let new = NewAdministrator { email, full_name: None, password: Some(password) };
    let prepared =
        app.prepare_administrator(new).await.context("cannot create the administrator")?;
    let made = app.create_administrator(prepared).await.map_err(anyhow::Error::msg);
    match made.context("cannot create the administrator")? {
        Made::Created(_) | Made::Promoted(_) | Made::Already(_) => Ok(()),
        Made::Taken(_) | Made::Unknown | Made::Disabled(_) => {
            bail!("the address of ROSTER_ADMIN_EMAIL belongs to a user who is no administrator")
        }
    }
}
