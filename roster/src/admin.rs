//! `roster admin create`: another administrator, on a system that runs.

use std::io::Read;
use std::process::ExitCode;

use anyhow::Context;
use async_nats::Client;
use command_api::{App, Made, NewAdministrator, PrepareError};
use events::{ROLE_ADMIN, subjects};
use serde_json::{Value, json};
use service_kit::config::Settings;
use service_kit::event_log::{EventLog, Limits};
use service_kit::metrics::Metrics;
use service_kit::nats;
use tokio_util::sync::CancellationToken;

use crate::audit::{self, Ended, Operation};
use crate::cli::{AdminAction, AdminArgs, WrongUse, failed, say};

/// Longest password that is read, in bytes. No valid one is as long.
const PASSWORD_BYTES_MAX: u64 = 4096;

/// Makes an administrator. Again is as good as once. Exit code 1 when somebody who is none has the address.
pub async fn run(settings: Settings, args: AdminArgs) -> anyhow::Result<ExitCode> {
    let AdminAction::Create { email, name, password_stdin, promote } = args.action;
    let password = if password_stdin { Some(password()?) } else { None };
    let client = nats::connect(&settings.nats, "operator").await?;
    let stop = CancellationToken::new();
    let app = App::build(&settings, &Metrics::new("admin"), stop.clone()).await?;
    // What a rule refuses is wrong use, and nothing that was begun.
    let prepared = if promote {
        None
    } else {
        let (full_name, password) = (name.as_deref(), password.as_deref());
        let new = NewAdministrator { email: &email, full_name, password };
        Some(app.prepare_administrator(new).await.map_err(not_prepared)?)
    };
    let making = async {
        let made = match prepared {
            None => app.promote_administrator(&email).await,
            Some(prepared) => app.create_administrator(prepared).await,
        };
        stop.cancel();
        let made = made.map_err(anyhow::Error::msg)?;
        let code = tell(made, password.is_some(), args.json);
        let (outcome, user) = named(made);
        Ok(Ended { code, result: json!({ "outcome": outcome, "user": user }) })
    };
    // Who it is stands in the result by id: an address is somebody's.
    let arguments = json!({ "promote": promote, "with_password": password.is_some() });
    audit::over(&settings, &client, Operation::AdminCreate, arguments, making).await
}

/// How many administrators there are, as the log has them.
///
/// # Errors
/// The log cannot be read.
pub async fn count(settings: &Settings, client: &Client) -> anyhow::Result<usize> {
    let log = EventLog::new(client.clone(), subjects::USERS_STREAM, Limits::of(settings));
    let Some(record) = log.last(&subjects::role_holders(ROLE_ADMIN)).await? else { return Ok(0) };
    let record: Value = serde_json::from_slice(&record.payload).context("who is administrator")?;
    Ok(record.get("holders").and_then(Value::as_array).map_or(0, Vec::len))
}

fn not_prepared(error: PrepareError) -> anyhow::Error {
    match error {
        PrepareError::Refused(why) => WrongUse(why).into(),
        PrepareError::Failed(why) => anyhow::Error::msg(why),
    }
}

/// The first line of standard input.
fn password() -> anyhow::Result<String> {
    let mut text = String::new();
    let read = std::io::stdin().take(PASSWORD_BYTES_MAX).read_to_string(&mut text);
    read.context("cannot read the password from standard input")?;
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(line.to_owned()),
        _ => Err(WrongUse("there is no password on standard input".to_owned()).into()),
    }
}

/// What became of it in a word, and whom it is about.
const fn named(made: Made) -> (&'static str, Option<events::UserId>) {
    match made {
        Made::Created(user) => ("created", Some(user)),
        Made::Promoted(user) => ("promoted", Some(user)),
        Made::Already(user) => ("already", Some(user)),
        Made::Taken(user) => ("taken", Some(user)),
        Made::Unknown => ("unknown", None),
        Made::Disabled(user) => ("disabled", Some(user)),
    }
}

fn tell(made: Made, has_password: bool, as_json: bool) -> ExitCode {
    let is_done = matches!(made, Made::Created(_) | Made::Promoted(_) | Made::Already(_));
    if as_json {
        let (outcome, user) = named(made);
        say(&json!({ "outcome": outcome, "user_id": user }).to_string());
        return if is_done { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let text = match made {
        Made::Created(user) if has_password => format!("created {user}, an administrator"),
        Made::Created(user) => {
            format!("created {user}, an administrator; a link to choose a password is mailed")
        }
        Made::Promoted(user) => format!("{user} is an administrator now"),
        Made::Already(user) => format!("{user} is an administrator already: nothing was changed"),
        Made::Taken(user) => {
            return failed(&format!(
                "{user} has that address and is no administrator: give them the role with --promote"
            ));
        }
        Made::Unknown => {
            return failed("nobody has that address: make an administrator without --promote");
        }
        Made::Disabled(user) => {
            return failed(&format!("{user} is disabled: enable the user first, over the API"));
        }
    };
    say(&text);
    ExitCode::SUCCESS
}
