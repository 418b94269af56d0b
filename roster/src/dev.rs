//! `roster dev`: real servers and all services in one process, and further services beside it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use futures::future::join_all;
use nats_access::{Role, Trust};
use service_kit::config::{ConfigError, Deployment, Examined, MailTransport, Settings};
use service_kit::health::Readiness;
use service_kit::keys::{random, replace_private};
use service_kit::nats::shown;
use service_kit::running::{Listeners, stop_on_signal};
use service_kit::telemetry::Telemetry;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::beside::{self, Around, Beside, Wanted};
use crate::cli::{DevArgs, failed, say};
use crate::init;
use crate::openapi::DOCUMENT;
use crate::provision::{self, Administrator};
use crate::schemas;
use crate::stack::{self, Stack};

/// The name of the process, for what belongs to none of its services.
const PROCESS: &str = "dev";
/// Exit code when a server keeps dying.
const GAVE_UP: u8 = 3;
/// Time from started servers to readiness.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause between two looks at readiness.
const READY_PAUSE: Duration = Duration::from_millis(10);
/// Folder with the keys of NATS, beside the credentials.
const TRUST_FOLDER: &str = "keys";
/// Settings for the operator's commands, in the data folder.
const OPERATOR_SETTINGS: &str = "operator.toml";
/// Address of the administrator that is made when none is asked for.
const ADMIN_EMAIL: &str = "admin@roster.internal";

/// Settings that it makes itself, with the flag that says otherwise, if there is one.
const OWN_SETTINGS: [(&str, &str); 7] = [
    ("nats.url", "--nats-url"),
    ("nats.url_file", "--nats-url"),
    ("mongodb.url", "--mongodb-url"),
    ("mongodb.url_file", "--mongodb-url"),
    ("secrets.dir", "--data-dir"),
    ("secrets.trust_dir", "--data-dir"),
    ("nats.credentials_file", "--nats-url"),
];

/// What of the settings holds here. Those that are made here are refused, since they would be of no effect; the private
/// listener and the public URL follow from where it listens unless they are set.
///
/// # Errors
/// [`ConfigError`] with everything that is wrong.
pub fn settings(examined: Examined<Settings>, args: &DevArgs) -> Result<Settings, ConfigError> {
    let Examined { mut settings, mut faults, given, .. } = examined;
    for (key, flag) in OWN_SETTINGS {
        // The user of a NATS that runs elsewhere is not known here.
        let is_theirs = key == "nats.credentials_file" && args.nats_url.is_some();
        if given.contains(key) && !is_theirs {
            faults.push(format!("`roster dev` does not use {key}: see {flag}"));
        }
    }
    if given.contains("deployment") && settings.deployment == Deployment::Production {
        faults.push("`roster dev` is for development, and deployment is production".to_owned());
    }
    settings.deployment = Deployment::Development;
    settings.http.listen = args.listen.unwrap_or(settings.http.listen);
    if !given.contains("http.private_listen") {
        let last = local_stack::last_port(&args.data_dir.join(PRIVATE_PORT));
        settings.http.private_listen = SocketAddr::from(([127, 0, 0, 1], last.unwrap_or(0)));
    }
    if !given.contains("tokens.issuer") {
        // Only known when it listens.
        settings.tokens.issuer.clear();
    }
    if faults.is_empty() { Ok(settings) } else { Err(faults.into()) }
}

/// Runs until a signal, or until a server keeps dying.
pub async fn run(settings: Settings, args: DevArgs) -> anyhow::Result<ExitCode> {
    let stop = stop_on_signal()?;
    let administrator = Administrator::from_env()?;
    let data = stack::open(&args.data_dir).await?;
    // What is missing is said before anything runs.
    let wanted = beside::wanted(&args.with, &data)?;
    let keys = Keys::make(&args.data_dir)?;
    let nats_config = match args.nats_url {
        None => Some(keys.trust.server_config()?),
        Some(_) => None,
    };
    let starting = Stack::start(data, nats_config, args.mongodb_url.is_none());
    let stack = tokio::select! {
        () = stop.cancelled() => return Ok(ExitCode::SUCCESS),
        stack = starting => stack?,
    };
    let dev = Dev { args: &args, keys: &keys, stack: &stack, stop: &stop };
    let ended = Box::pin(dev.with_servers(settings, administrator, wanted)).await;
    stop.cancel();
    stack.stop().await;
    ended
}

/// Where keys and credentials lie.
struct Keys {
    trust: Trust,
    secrets: PathBuf,
    creds: PathBuf,
}

impl Keys {
    fn make(data_dir: &Path) -> anyhow::Result<Self> {
        let (secrets, creds) = (data_dir.join("secrets"), data_dir.join("nats"));
        init::keys(&secrets)?;
        let trust = Trust::load_or_create(&creds.join(TRUST_FOLDER))?;
        trust.write_creds(&creds)?;
        Ok(Self { trust, secrets, creds })
    }

    fn trust_dir(&self) -> PathBuf {
        self.creds.join(TRUST_FOLDER)
    }
}

/// The settings of one service out of those of all.
struct Plan<'a> {
    settings: Settings,
    keys: &'a Keys,
    own_nats: bool,
}

impl Plan<'_> {
    fn of(&self, role: Role, secrets: &str) -> Settings {
        let mut settings = self.settings.clone();
        settings.secrets.dir = self.keys.secrets.join(secrets);
        if self.own_nats {
            settings.nats.credentials_file = self.keys.creds.join(format!("{}.creds", role.name()));
        }
        settings
    }

    fn around<'b>(&'b self, url: &'b str) -> Around<'b> {
        Around {
            settings: &self.settings,
            url,
            trust: &self.keys.trust,
            creds: self.own_nats.then_some(self.keys.creds.as_path()),
            secrets: &self.keys.secrets,
        }
    }
}

/// What everything that runs hangs from.
#[derive(Clone, Copy)]
struct Dev<'a> {
    args: &'a DevArgs,
    keys: &'a Keys,
    stack: &'a Stack,
    stop: &'a CancellationToken,
}

/// File with the port of the private listener, for the next time.
const PRIVATE_PORT: &str = "private.port";

/// Where Roster listens.
struct Place {
    listeners: Listeners,
    url: String,
    private: String,
}

impl Place {
    async fn bind(settings: &Settings) -> anyhow::Result<Self> {
        let listeners = Listeners::bind(&settings.http, Some(DOCUMENT)).await?;
        let url = format!("http://{}", listeners.public_addr()?.context("no public listener")?);
        let private = format!("http://{}", listeners.private_addr());
        Ok(Self { listeners, url, private })
    }
}

impl Dev<'_> {
    async fn with_servers(
        self,
        mut settings: Settings,
        administrator: Option<Administrator>,
        wanted: Vec<Wanted>,
    ) -> anyhow::Result<ExitCode> {
        let Self { args, keys, stack, stop } = self;
        let given = |own: Option<String>, given: &Option<String>| own.or_else(|| given.clone());
        settings.nats.url = given(stack.nats_url(), &args.nats_url).context("no NATS")?;
        settings.mongodb.url =
            given(stack.mongodb_url(), &args.mongodb_url).context("no MongoDB")?;

        if args.no_throttle {
            // A load test is one client.
            settings.http.connections_per_network_max = settings.http.connections_max;
        }
        let place = Place::bind(&settings).await?;
        let port = place.listeners.private_addr().port();
        local_stack::keep_port(&args.data_dir.join(PRIVATE_PORT), port);
        if settings.tokens.issuer.is_empty() {
            settings.tokens.issuer.clone_from(&place.url);
        }
        settings.throttle.enabled &= !args.no_throttle;
        if settings.mail.transport == MailTransport::Folder
            && settings.mail.folder.as_os_str().is_empty()
        {
            settings.mail.folder = args.data_dir.join("mail");
        }
        let plan = Plan { own_nats: stack.nats_url().is_some(), settings, keys };

        let operator = plan.of(Role::Operator, "operator");
        write_operator_settings(&args.data_dir, &operator, keys)?;
        provision::log(&operator).await?;
        let beside = Beside::prepare(wanted, &plan.around(&place.url))?;
        let provisioned = tokio::select! {
            () = stop.cancelled() => Ok(()),
            provisioned = beside.provision() => provisioned,
        };
        let ended = match provisioned {
            Ok(()) => Box::pin(self.with_log(&plan, place, administrator, &beside)).await,
            Err(error) => Err(error),
        };
        // An error may have left some of them as they were.
        beside.stop().await;
        match ended? {
            None => Ok(ExitCode::SUCCESS),
            Some(name) => {
                failed(&format!("{name} keeps dying; see its log in the data folder"));
                Ok(ExitCode::from(GAVE_UP))
            }
        }
    }

    /// Runs Roster's services where there is a log for them, and the others beside them, until a signal or until something
    /// keeps dying, which is named.
    async fn with_log(
        self,
        plan: &Plan<'_>,
        place: Place,
        administrator: Option<Administrator>,
        beside: &Beside,
    ) -> anyhow::Result<Option<String>> {
        let (stop, telemetry) = (self.stop, &plan.settings.telemetry);
        let process = Telemetry::start(telemetry, PROCESS)?;
        let over_commands = process.of(telemetry, command_api::SERVICE)?;
        let over_queries = process.of(telemetry, query_api::SERVICE)?;
        let over_projector = process.of(telemetry, projector::SERVICE)?;
        let over_reactor = process.of(telemetry, reactor::SERVICE)?;
        // The two that follow the projector listen before it speaks.
        let commands = command_api::App::build(
            &plan.of(Role::CommandApi, "command-api"),
            &over_commands.metrics,
            stop.clone(),
        )
        .await?;
        let queries = query_api::App::build(
            &plan.of(Role::QueryApi, "query-api"),
            &over_queries.metrics,
            stop.clone(),
        )
        .await?;
        let projector =
            projector::App::build(&plan.of(Role::Projector, "projector"), &over_projector).await?;
        let reactor = reactor::App::build(&plan.of(Role::Mailer, "reactor"), &over_reactor).await?;

        let readiness = commands
            .readiness()
            .and(queries.readiness())
            .and(projector.readiness())
            .and(reactor.readiness());
        let services = vec![
            (over_commands.clone(), commands.router()),
            (
                over_queries.clone(),
                queries.router().merge(queries.key_routes()).merge(schemas::routes()?),
            ),
        ];
        let following = TaskTracker::new();
        following.spawn(projector.run(stop.clone()));
        following.spawn(reactor.run(stop.clone()));
        following.close();
        let Place { listeners, url, private } = place;
        let serving = listeners.start(services, readiness.clone(), &process, stop);

        let starting = async {
            get_ready(&commands, administrator, &readiness).await?;
            // They ask for the keys of tokens, and so come last.
            beside.start().await
        };
        let ended = tokio::select! {
            ready = starting => match ready {
                Ok(()) => {
                    let (nats, mongodb) =
                        (shown(&plan.settings.nats.url), shown(&plan.settings.mongodb.url));
                    say(&format!("ready url={url} private={private} nats={nats} mongodb={mongodb}"));
                    Ok(self.watch(beside).await)
                }
                Err(error) => Err(error),
            },
            name = self.stack.watch(stop) => Ok(name),
        };
        beside.stop().await;
        stop.cancel();
        serving.wait().await;
        commands.finished().await;
        queries.finished().await;
        following.wait().await;
        let watches = [process, over_commands, over_queries, over_projector, over_reactor];
        join_all(watches.iter().map(|watch| watch.tracer.finished())).await;
        ended
    }

    async fn watch(self, beside: &Beside) -> Option<String> {
        tokio::select! {
            name = self.stack.watch(self.stop) => name,
            name = beside.watch() => Some(name),
        }
    }
}

/// Settings with which the operator's commands find what runs here: `--config <data folder>/operator.toml`.
fn write_operator_settings(
    data_dir: &Path,
    settings: &Settings,
    keys: &Keys,
) -> anyhow::Result<()> {
    let absolute = |path: &Path| -> anyhow::Result<String> {
        let path = std::path::absolute(path)?;
        Ok(path.to_str().context("the data folder has a name that is no text")?.to_owned())
    };
    let mut text =
        "# Written at each start of `roster dev`, for the operator's commands.\n".to_owned();
    text.push_str("deployment = \"development\"\n");
    let mut section = |name: &str, members: &[(&str, &str)]| {
        text.push_str(&format!("[{name}]\n"));
        for (member, value) in members {
            // JSON's strings are strings of TOML too.
            text.push_str(&format!("{member} = {}\n", serde_json::json!(value)));
        }
    };
    let creds = &settings.nats.credentials_file;
    let creds = if creds.as_os_str().is_empty() { String::new() } else { absolute(creds)? };
    section("nats", &[("url", &settings.nats.url), ("credentials_file", &creds)]);
    let database = &settings.mongodb.database;
    section("mongodb", &[("url", &settings.mongodb.url), ("database", database)]);
    let (dir, trust) = (absolute(&settings.secrets.dir)?, absolute(&keys.trust_dir())?);
    section("secrets", &[("dir", &dir), ("trust_dir", &trust)]);
    Ok(replace_private(&data_dir.join(OPERATOR_SETTINGS), text.as_bytes())?)
}

/// Makes the first administrator and waits until every check holds.
async fn get_ready(
    commands: &command_api::App,
    administrator: Option<Administrator>,
    readiness: &Readiness,
) -> anyhow::Result<()> {
    first_administrator(commands, administrator).await?;
    let deadline = Instant::now() + READY_TIMEOUT;
    while let Err(failed) = readiness.check().await {
        if Instant::now() > deadline {
            bail!("not ready in time: {failed:?}");
        }
        sleep(READY_PAUSE).await;
    }
    Ok(())
}

async fn first_administrator(
    commands: &command_api::App,
    administrator: Option<Administrator>,
) -> anyhow::Result<()> {
    if commands.has_administrator().await.map_err(anyhow::Error::msg)? {
        return Ok(());
    }
    if let Some(administrator) = administrator {
        return provision::create(commands, &administrator).await;
    }
    let password = random::<12>()?.map(|byte| format!("{byte:02x}")).concat();
    let administrator = Administrator { email: ADMIN_EMAIL.to_owned(), password };
    provision::create(commands, &administrator).await?;
    say(&format!(
        "administrator email={} password={} (shown this once)",
        administrator.email, administrator.password
    ));
    Ok(())
}
