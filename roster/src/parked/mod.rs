//! `roster parked`: what was put aside, since it could not be done or read.

mod events;
mod mails;

use std::fmt;
use std::process::ExitCode;
use std::time::Duration;

use ::events::{Position, subjects};
use reactor::ParkedMails;
use serde_json::{Value, json};
use service_kit::config::Settings;
use service_kit::event_log::{EventLog, Limits};
use service_kit::key_ring::Ring;
use service_kit::keys::APPLICATION_KEY_FILE;
use service_kit::mail_jobs::{MAIL_KEY_PURPOSE, MailJobs};
use service_kit::nats;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use self::events::{Item, ParkedEvents};
use crate::audit::{self, Ended, Operation};
use crate::cli::{ParkedAction, ParkedArgs, failed, progress, say};

/// How long a projector may take to read again what is parked.
const HEAL_MAX: Duration = Duration::from_secs(15);
/// The answer to the name of something that is not parked.
const NOT_PARKED: &str = "nothing of this name is parked";
/// Pause between two looks whether it has.
const HEAL_PAUSE: Duration = Duration::from_millis(200);

/// How `list` names what is parked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParkedId {
    /// A mail, by its order.
    Mail(Uuid),
    /// What waits behind an event that cannot be read.
    Event(&'static str, Position),
}

impl fmt::Display for ParkedId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mail(id) => id.fmt(f),
            Self::Event(stream, position) => write!(f, "{}-{position}", stream.to_lowercase()),
        }
    }
}

/// Reads what `list` shows: the id of a mail, or `users-17`, `sessions-17`.
pub fn parked_id(text: &str) -> Result<ParkedId, String> {
    if let Ok(id) = text.parse() {
        return Ok(ParkedId::Mail(id));
    }
    let event = text.split_once('-').and_then(|(stream, position)| {
        let position = Position(position.parse().ok()?);
        match stream {
            "users" => Some(ParkedId::Event(subjects::USERS_STREAM, position)),
            "sessions" => Some(ParkedId::Event(subjects::SESSIONS_STREAM, position)),
            _ => None,
        }
    });
    event.ok_or_else(|| {
        "neither the id of a mail nor users-POSITION or sessions-POSITION".to_owned()
    })
}

/// Looks, tries again or gives up. Exit code 1 when something is parked, or what was named is not.
pub async fn run(settings: Settings, args: ParkedArgs) -> anyhow::Result<ExitCode> {
    let ring = Ring::read(&settings.secrets.dir.join(APPLICATION_KEY_FILE))?;
    let orders = MailJobs::new(ring.derive(MAIL_KEY_PURPOSE))?;
    let client = nats::connect(&settings.nats, "operator").await?;
    let mails = EventLog::new(client.clone(), subjects::MAILS_STREAM, Limits::of(&settings));
    let parked = Parked {
        mails: ParkedMails::new(mails, orders),
        events: ParkedEvents::open(&settings).await?,
        as_json: args.json,
    };
    match args.action {
        ParkedAction::List => parked.list().await,
        ParkedAction::Show { id } => parked.show(id).await,
        ParkedAction::Retry { id } => {
            let arguments = json!({ "id": id.map(|id| id.to_string()) });
            let retrying = parked.retry(id);
            audit::over(&settings, &client, Operation::ParkedRetry, arguments, retrying).await
        }
        ParkedAction::Drop { id } => {
            let arguments = json!({ "id": id.to_string() });
            let dropping = parked.drop(id);
            audit::over(&settings, &client, Operation::ParkedDrop, arguments, dropping).await
        }
    }
}

/// What is parked, and how it is told.
struct Parked {
    mails: ParkedMails,
    events: ParkedEvents,
    as_json: bool,
}

impl Parked {
    async fn list(&self) -> anyhow::Result<ExitCode> {
        let mut items = mails::items(&self.mails).await?;
        items.extend(self.events.list().await?.iter().map(Item::told));
        let code = if items.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        show(items, self.as_json);
        Ok(code)
    }

    async fn show(&self, id: ParkedId) -> anyhow::Result<ExitCode> {
        let item = match id {
            ParkedId::Mail(id) => mails::item(&self.mails, id).await?,
            ParkedId::Event(stream, position) => match self.events.find(stream, position).await? {
                Some(item) => Some(self.events.told_whole(&item).await?),
                None => None,
            },
        };
        let Some(item) = item else { return Ok(failed(NOT_PARKED)) };
        say(&match self.as_json {
            true => item.json.to_string(),
            false => serde_json::to_string_pretty(&item.json)?,
        });
        Ok(ExitCode::SUCCESS)
    }

    async fn retry(&self, id: Option<ParkedId>) -> anyhow::Result<Ended> {
        match id {
            Some(ParkedId::Mail(id)) => {
                let found = mails::retry(&self.mails, id).await?;
                Ok(mails::told(id, found, "retried", self.as_json))
            }
            Some(ParkedId::Event(stream, position)) => {
                match self.events.find(stream, position).await? {
                    Some(item) => self.heal(Done::Retried, &[item], &[]).await,
                    None => Ok(Ended { code: failed(NOT_PARKED), result: json!({}) }),
                }
            }
            None => {
                let retried = mails::retry_all(&self.mails).await?;
                self.heal(Done::Retried, &self.events.list().await?, &retried).await
            }
        }
    }

    async fn drop(&self, id: ParkedId) -> anyhow::Result<Ended> {
        let (stream, position) = match id {
            ParkedId::Mail(id) => {
                let found = self.mails.drop(id).await?;
                return Ok(mails::told(id, found, "dropped", self.as_json));
            }
            ParkedId::Event(stream, position) => (stream, position),
        };
        let Some(item) = self.events.find(stream, position).await? else {
            return Ok(Ended { code: failed(NOT_PARKED), result: json!({}) });
        };
        self.events.remove(&item).await?;
        progress(&format!(
            "the event at position {position} of {stream} is gone for good; `roster verify` names the gap it leaves"
        ));
        self.heal(Done::Dropped, &[item], &[]).await
    }

    /// Lets the projectors read again what is parked, and waits until they have let it go.
    async fn heal(&self, done: Done, wished: &[Item], mails: &[Uuid]) -> anyhow::Result<Ended> {
        let mut still = wished.to_vec();
        let deadline = Instant::now() + HEAL_MAX;
        while !still.is_empty() && Instant::now() < deadline {
            self.events.wish.send().await?;
            sleep(HEAL_PAUSE).await;
            let parked = self.events.list().await?;
            still.clear();
            still.extend(parked.into_iter().filter(|one| wished.iter().any(|it| it.is_of(one))));
            // One that came further, and stands before another event that cannot be read, is parked still.
            if !still.iter().all(|one| wished.iter().any(|item| item.id() == one.id())) {
                break;
            }
        }
        let is_still = |item: &&Item| still.iter().any(|one| item.is_of(one));
        // A dropped event is gone also where its user waits behind another one.
        let is_done = |item: &&Item| matches!(done, Done::Dropped) || !is_still(item);
        let healed = wished.iter().filter(is_done).map(Item::id);
        let ids: Vec<String> = mails.iter().map(Uuid::to_string).chain(healed).collect();
        let left: Vec<String> = still.iter().map(Item::id).collect();
        if self.as_json {
            let told: Vec<Value> = still.iter().map(|one| one.told().json).collect();
            say(&json!({ done.name(): ids, "still_parked": told }).to_string());
        } else {
            for id in &ids {
                say(&format!("{} {id}", done.name()));
            }
            if wished.is_empty() && mails.is_empty() {
                say("nothing is parked");
            }
            for one in &still {
                say(&format!("still parked: {}", one.told().line));
            }
        }
        let code = match (still.is_empty(), self.as_json) {
            (true, _) => ExitCode::SUCCESS,
            (false, true) => ExitCode::FAILURE,
            (false, false) => failed(
                "it cannot be read, or no projector runs: start a version that knows it, or drop it",
            ),
        };
        Ok(Ended { code, result: json!({ done.name(): ids, "still_parked": left }) })
    }
}

/// What a command does about an event.
#[derive(Clone, Copy)]
enum Done {
    Retried,
    Dropped,
}

impl Done {
    const fn name(self) -> &'static str {
        match self {
            Self::Retried => "retried",
            Self::Dropped => "dropped",
        }
    }
}

/// One thing that is parked, for both kinds of readers.
pub struct Told {
    line: String,
    json: Value,
}

fn show(items: Vec<Told>, as_json: bool) {
    if as_json {
        let items: Vec<Value> = items.into_iter().map(|item| item.json).collect();
        say(&json!({ "items": items }).to_string());
        return;
    }
    for item in &items {
        say(&item.line);
    }
    if items.is_empty() {
        say("nothing is parked");
    }
}
