//! `roster erase --verify`: whether anything is left of a deleted user.

use std::process::ExitCode;

use anyhow::Context;
use events::UserId;
use reactor::{Standing, Streams};
use serde::Serialize;
use serde_json::json;
use service_kit::config::Settings;
use service_kit::event_log::{EventLog, Limits};
use service_kit::key_ring::Ring;
use service_kit::keys::APPLICATION_KEY_FILE;
use service_kit::mail_jobs::{MAIL_KEY_PURPOSE, MailJobs};
use service_kit::nats;
use views::Views;

use crate::cli::{EraseArgs, failed, say};

/// Something that is left.
#[derive(Serialize)]
#[serde(untagged)]
enum Left {
    Message { stream: &'static str, position: u64, what: &'static str },
    Document { collection: String, id: String, what: String },
}

impl Left {
    fn line(&self) -> String {
        match self {
            Self::Message { stream, position, what } => format!("{stream}  {position}  {what}"),
            Self::Document { collection, id, what } => format!("{collection}  {id}  {what}"),
        }
    }
}

/// Looks everywhere. Exit code 0 when nothing is left but the tombstones.
pub async fn run(settings: Settings, args: EraseArgs) -> anyhow::Result<ExitCode> {
    let user = args.user;
    let ring = Ring::read(&settings.secrets.dir.join(APPLICATION_KEY_FILE))?;
    let orders = MailJobs::new(ring.derive(MAIL_KEY_PURPOSE))?;
    let client = nats::connect(&settings.nats, "operator").await?;
    let limits = Limits::of(&settings);
    let streams = Streams::new(|stream| EventLog::new(client.clone(), stream, limits), orders);
    let deletion = match streams.standing(user).await? {
        Standing::Deleted(position) => position,
        Standing::Unknown => return Ok(refused(user, "nobody has or had this id", args.json)),
        Standing::Present => return Ok(refused(user, "the user is not deleted", args.json)),
    };
    let messages = streams.left(user, deletion).await?;
    let views = Views::open(&settings.mongodb.url, &settings.mongodb.database).await?;
    let in_views = projector::residue(&views, user, deletion).await;
    let in_views = in_views.context("the database of the views")?;

    let messages = messages.into_iter().map(|left| Left::Message {
        stream: left.stream,
        position: left.position.0,
        what: left.what,
    });
    let documents = in_views.documents.into_iter().map(|left| Left::Document {
        collection: left.collection,
        id: left.id,
        what: left.what,
    });
    let left: Vec<Left> = messages.chain(documents).collect();
    let mut waits = Vec::new();
    if !streams.is_told(user).await? {
        waits.push("the feed does not tell of the deletion yet");
    }
    if !in_views.is_known {
        waits.push("the views do not know of the deletion yet");
    }
    let erased = left.is_empty() && waits.is_empty();
    if args.json {
        let answer = json!({
            "user": user, "deleted": true, "erased": erased, "left": left, "waits_for": waits,
        });
        say(&answer.to_string());
    } else {
        for line in left.iter().map(Left::line) {
            say(&line);
        }
        for line in waits {
            say(line);
        }
        if erased {
            say(&format!("nothing is left of {user} but the tombstones"));
        }
    }
    Ok(if erased { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn refused(user: UserId, why: &str, as_json: bool) -> ExitCode {
    if as_json {
        say(&json!({"user": user, "deleted": false, "erased": false, "why": why}).to_string());
        return ExitCode::FAILURE;
    }
    failed(why)
}
