//! Mails that could not be sent.

use std::process::ExitCode;

use anyhow::Context;
use reactor::{ParkedMail, ParkedMails};
use serde_json::json;
use service_kit::ambient;
use uuid::Uuid;

use super::Told;
use crate::audit::Ended;
use crate::cli::{failed, say};

/// All of them, oldest first.
pub async fn items(parked: &ParkedMails) -> anyhow::Result<Vec<Told>> {
    Ok(parked.list().await?.iter().map(item_of).collect())
}

/// One of them.
pub async fn item(parked: &ParkedMails, id: Uuid) -> anyhow::Result<Option<Told>> {
    Ok(parked.list().await?.iter().find(|mail| mail.id == id).map(item_of))
}

fn item_of(mail: &ParkedMail) -> Told {
    let (id, at, kind) = (mail.id, mail.parked_at, mail.kind.unwrap_or("unreadable"));
    let age_s = (ambient::now().as_datetime() - at.as_datetime()).num_seconds().max(0);
    Told {
        line: format!("{id}  {at}  {age_s} s  {kind}"),
        json: json!({"id": id, "kind": kind, "parked_at": at, "age_s": age_s}),
    }
}

/// Puts one back to be sent; `false` when it is not here.
pub async fn retry(parked: &ParkedMails, id: Uuid) -> anyhow::Result<bool> {
    parked.retry(id).await.context("it may be put back already")
}

/// Puts all of them back.
pub async fn retry_all(parked: &ParkedMails) -> anyhow::Result<Vec<Uuid>> {
    let mut retried = Vec::new();
    for mail in parked.list().await? {
        if parked.retry(mail.id).await.context("some may be put back already")? {
            retried.push(mail.id);
        }
    }
    Ok(retried)
}

/// Says what was done about one.
pub fn told(id: Uuid, found: bool, done: &str, as_json: bool) -> Ended {
    let ids: &[Uuid] = if found { &[id] } else { &[] };
    let result = json!({ done: ids });
    if as_json {
        say(&result.to_string());
    } else if found {
        say(&format!("{done} {id}"));
    }
    let code = match (found, as_json) {
        (true, _) => ExitCode::SUCCESS,
        (false, true) => ExitCode::FAILURE,
        (false, false) => failed("no such mail is parked"),
    };
    Ended { code, result }
}
