//! `roster parked`: the mails that could not be sent.

use std::process::ExitCode;

use anyhow::Context;
use events::subjects;
use reactor::{ParkedMail, ParkedMails};
use serde_json::{Value, json};
use service_kit::ambient;
use service_kit::config::Settings;
use service_kit::event_log::{EventLog, Limits};
use service_kit::keys::{APPLICATION_KEY_FILE, SecretKey};
use service_kit::mail_orders::{MAIL_KEY_PURPOSE, MailOrders};
use service_kit::nats;
use uuid::Uuid;

use crate::cli::{ParkedAction, ParkedArgs, failed, say};

/// Looks, puts back or gives up. Exit code 1 when something is parked, or what was named is not.
pub async fn run(settings: Settings, args: ParkedArgs) -> anyhow::Result<ExitCode> {
    let key = SecretKey::read(&settings.secrets.dir.join(APPLICATION_KEY_FILE))?;
    let orders = MailOrders::new(&key.derive(MAIL_KEY_PURPOSE))?;
    let client = nats::connect(&settings.nats, "operator").await?;
    let mails = EventLog::new(client, subjects::MAILS_STREAM, Limits::of(&settings));
    let parked = ParkedMails::new(mails, orders);
    match args.action {
        ParkedAction::List => {
            let mails = parked.list().await?;
            show(&mails, args.json);
            Ok(if mails.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        ParkedAction::Retry { id: Some(id) } => {
            let found = parked.retry(id).await.context("it may be put back already")?;
            Ok(told(&[id], found, "retried", args.json))
        }
        ParkedAction::Retry { id: None } => {
            let mut retried = Vec::new();
            for mail in parked.list().await? {
                if parked.retry(mail.id).await.context("some may be put back already")? {
                    retried.push(mail.id);
                }
            }
            Ok(told(&retried, true, "retried", args.json))
        }
        ParkedAction::Drop { id } => Ok(told(&[id], parked.drop(id).await?, "dropped", args.json)),
    }
}

fn show(mails: &[ParkedMail], as_json: bool) {
    let now = ambient::now().as_datetime();
    let age_s = |mail: &ParkedMail| (now - mail.parked_at.as_datetime()).num_seconds().max(0);
    let kind = |mail: &ParkedMail| mail.kind.unwrap_or("unreadable");
    if as_json {
        let items: Vec<Value> = mails
            .iter()
            .map(|mail| {
                json!({
                    "id": mail.id,
                    "kind": kind(mail),
                    "parked_at": mail.parked_at,
                    "age_s": age_s(mail),
                })
            })
            .collect();
        say(&json!({ "items": items }).to_string());
        return;
    }
    for mail in mails {
        let (id, at, age_s) = (mail.id, mail.parked_at, age_s(mail));
        say(&format!("{id}  {at}  {age_s} s  {}", kind(mail)));
    }
    if mails.is_empty() {
        say("nothing is parked");
    }
}

fn told(ids: &[Uuid], found: bool, done: &str, as_json: bool) -> ExitCode {
    let ids = if found { ids } else { &[] };
    if as_json {
        say(&json!({ done: ids }).to_string());
    } else if found {
        for id in ids {
            say(&format!("{done} {id}"));
        }
        if ids.is_empty() {
            say("nothing is parked");
        }
    }
    match (found, as_json) {
        (true, _) => ExitCode::SUCCESS,
        (false, true) => ExitCode::FAILURE,
        (false, false) => failed("no such mail is parked"),
    }
}
