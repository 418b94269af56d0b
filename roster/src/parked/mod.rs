//! `roster parked`: what was put aside, since it could not be done or read.

mod events;
mod mails;

use std::process::ExitCode;
use std::time::Duration;

use ::events::{Position, subjects};
use reactor::ParkedMails;
use serde_json::{Value, json};
use service_kit::config::Settings;
use service_kit::event_log::{EventLog, Limits};
use service_kit::keys::{APPLICATION_KEY_FILE, SecretKey};
use service_kit::mail_orders::{MAIL_KEY_PURPOSE, MailOrders};
use service_kit::nats;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use self::events::{Item, ParkedEvents};
use crate::cli::{ParkedAction, ParkedArgs, failed, progress, say};

/// How long a projector may take to read again what is parked.
const HEAL_MAX: Duration = Duration::from_secs(15);
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
    let key = SecretKey::read(&settings.secrets.dir.join(APPLICATION_KEY_FILE))?;
    let orders = MailOrders::new(&key.derive(MAIL_KEY_PURPOSE))?;
    let client = nats::connect(&settings.nats, "operator").await?;
    let mails = EventLog::new(client, subjects::MAILS_STREAM, Limits::of(&settings));
    let mails = ParkedMails::new(mails, orders);
    let events = ParkedEvents::open(&settings).await?;
    match args.action {
        ParkedAction::List => {
            let mut items = mails::items(&mails).await?;
            items.extend(events.list().await?.iter().map(Item::told));
            let empty = items.is_empty();
            show(items, args.json);
            Ok(if empty { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        ParkedAction::Show { id } => {
            let item = match id {
                ParkedId::Mail(id) => mails::item(&mails, id).await?,
                ParkedId::Event(stream, position) => match events.find(stream, position).await? {
                    Some(item) => Some(events.told_whole(&item).await?),
                    None => None,
                },
            };
            let Some(item) = item else { return Ok(failed("nothing of this name is parked")) };
            say(&if args.json {
                item.json.to_string()
            } else {
                serde_json::to_string_pretty(&item.json)?
            });
            Ok(ExitCode::SUCCESS)
        }
        ParkedAction::Retry { id: Some(ParkedId::Mail(id)) } => {
            Ok(mails::told(&[id], mails::retry(&mails, id).await?, "retried", args.json))
        }
        ParkedAction::Retry { id: Some(ParkedId::Event(stream, position)) } => {
            match events.find(stream, position).await? {
                Some(item) => heal(&events, &[item], &[], args.json).await,
                None => Ok(failed("nothing of this name is parked")),
            }
        }
        ParkedAction::Retry { id: None } => {
            let retried = mails::retry_all(&mails).await?;
            heal(&events, &events.list().await?, &retried, args.json).await
        }
        ParkedAction::Drop { id: ParkedId::Mail(id) } => {
            Ok(mails::told(&[id], mails.drop(id).await?, "dropped", args.json))
        }
        ParkedAction::Drop { id: ParkedId::Event(stream, position) } => {
            let Some(item) = events.find(stream, position).await? else {
                return Ok(failed("nothing of this name is parked"));
            };
            events.remove(&item).await?;
            progress(&format!(
                "the event at position {position} of {stream} is gone for good; `roster verify` names the gap it leaves"
            ));
            heal(&events, &[item], &[], args.json).await
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

/// Lets the projectors read again what is parked, and waits until they have let it go.
async fn heal(
    events: &ParkedEvents,
    wished: &[Item],
    mails: &[Uuid],
    as_json: bool,
) -> anyhow::Result<ExitCode> {
    let mut still = wished.to_vec();
    let deadline = Instant::now() + HEAL_MAX;
    while !still.is_empty() && Instant::now() < deadline {
        events.wish.send().await?;
        sleep(HEAL_PAUSE).await;
        let parked = events.list().await?;
        // One that came further, and stands before another event that cannot be read, is parked still.
        still =
            parked.into_iter().filter(|one| wished.iter().any(|item| item.is_of(one))).collect();
        if !still.iter().all(|one| wished.iter().any(|item| item.id() == one.id())) {
            break;
        }
    }
    let healed: Vec<String> = wished
        .iter()
        .filter(|item| !still.iter().any(|one| item.is_of(one)))
        .map(Item::id)
        .collect();
    if as_json {
        let retried: Vec<Value> =
            healed.iter().map(|id| json!(id)).chain(mails.iter().map(|id| json!(id))).collect();
        let still: Vec<Value> = still.iter().map(|one| one.told().json).collect();
        say(&json!({ "retried": retried, "still_parked": still }).to_string());
    } else {
        for id in mails.iter().map(Uuid::to_string).chain(healed) {
            say(&format!("retried {id}"));
        }
        if wished.is_empty() && mails.is_empty() {
            say("nothing is parked");
        }
        for one in &still {
            say(&format!("still parked: {}", one.told().line));
        }
    }
    match (still.is_empty(), as_json) {
        (true, _) => Ok(ExitCode::SUCCESS),
        (false, true) => Ok(ExitCode::FAILURE),
        (false, false) => Ok(failed(
            "it cannot be read, or no projector runs: start a version that knows it, or drop it",
        )),
    }
}
