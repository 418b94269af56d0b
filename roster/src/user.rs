//! `roster user show`: everything that there is of one user, side by side.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context;
use events::feed::{FEED_STREAM, of_user};
use events::{
    Cutoff, EmailAddress, EmailClaim, Event, Fact, Position, Reservation, SessionEvent, Snapshot,
    UserId, subjects,
};
use mongodb::bson::{Document, doc};
use serde_json::{Value, json};
use service_kit::config::Settings;
use service_kit::event_log::{EventLog, Limits};
use service_kit::keys::SecretKey;
use service_kit::lookup_keys::LookupKeys;
use service_kit::{ambient, nats};
use views::{
    ViewSet, Views, email_key, history_collection, sessions_collection, user_key, users_collection,
};

use crate::cli::{UserShowArgs, failed, say};
use crate::reading::Reading;
use crate::verify;

/// How long views and feed may take to reach the end of the log.
const WAIT: Duration = Duration::from_secs(5);
/// Differences that are named.
const DIFFERENCES_MAX: usize = 100;

/// Whom a command is about.
#[derive(Debug, Clone)]
pub enum Whom {
    /// By id.
    User(UserId),
    /// By the address that the user has now.
    Address(String),
}

impl FromStr for Whom {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(user) => Ok(Self::User(user)),
            Err(_) => match EmailAddress::parse(text) {
                Ok(email) => Ok(Self::Address(email.as_given().to_owned())),
                Err(_) => Err("neither the id of a user nor an address".to_owned()),
            },
        }
    }
}

/// Checks an address.
pub fn address(text: &str) -> Result<String, String> {
    let address = EmailAddress::parse(text).map_err(|why| format!("the address {why}"))?;
    Ok(address.as_given().to_owned())
}

/// Shows. Exit code 1 when there is no such user, or something disagrees.
pub async fn show(settings: Settings, args: UserShowArgs) -> anyhow::Result<ExitCode> {
    let client = nats::connect(&settings.nats, "operator").await?;
    let log = |stream| EventLog::new(client.clone(), stream, Limits::of(&settings));
    let claim_key = LookupKeys::read(&settings.secrets.dir)?.claims;
    let looking = Looking {
        users: log(subjects::USERS_STREAM),
        sessions: log(subjects::SESSIONS_STREAM),
        feed: log(FEED_STREAM),
        views: Views::open(&settings.mongodb.url, &settings.mongodb.database).await?,
        claim_key,
    };
    let user = match &args.who {
        Whom::User(user) => *user,
        Whom::Address(email) => match looking.holder(email).await? {
            Some(user) => user,
            None => return Ok(failed(&looking.nobody(email).await?)),
        },
    };
    let report = verify::of_user(&settings, user, WAIT, DIFFERENCES_MAX).await?;
    let (in_log, email) = looking.log(user).await?;
    let events = in_log.get("events").and_then(Value::as_array);
    if events.is_none_or(Vec::is_empty) && report.total() == 0 {
        return Ok(failed("there is no such user"));
    }
    let found = json!({
        "user_id": user,
        "log": in_log,
        "claim": looking.claim(email.as_deref()).await?,
        "views": looking.documents(user).await?,
        "sessions": looking.sessions(user).await?,
        "feed": looking.told(user).await?,
        "changed_meanwhile": report.changed_meanwhile,
        "differences": report.shown(),
    });
    if args.json {
        say(&found.to_string());
    } else {
        say(&serde_json::to_string_pretty(&found)?);
        for difference in report.shown() {
            say(&difference.line());
        }
        say(if report.total() == 0 { "all of it agrees" } else { "they disagree" });
    }
    Ok(if report.total() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

struct Looking {
    users: EventLog,
    sessions: EventLog,
    feed: EventLog,
    views: Views,
    claim_key: SecretKey,
}

impl Looking {
    /// Who has an address.
    async fn holder(&self, email: &str) -> anyhow::Result<Option<UserId>> {
        Ok(self.stored_claim(email).await?.and_then(|(claim, _)| claim.holder()))
    }

    /// Why nobody is found by an address.
    async fn nobody(&self, email: &str) -> anyhow::Result<String> {
        let claim = self.stored_claim(email).await?.map(|(claim, _)| claim);
        let reserved = claim.and_then(|claim| Some((claim, claim.reservation(ambient::now())?)));
        Ok(reserved.map_or_else(
            || "nobody has that address".to_owned(),
            |(EmailClaim { user_id, .. }, Reservation { until, .. })| {
                format!(
                    "nobody has that address; until {until} it is reserved for the user {user_id}, who changed it, \
                     unless they are deleted or have undone the change"
                )
            },
        ))
    }

    async fn stored_claim(&self, email: &str) -> anyhow::Result<Option<(EmailClaim, Position)>> {
        let key = self.claim_key.mac_hex(&[email_key(email).as_bytes()]);
        let Some(stored) = self.users.last(&subjects::email_claim(&key)).await? else {
            return Ok(None);
        };
        let claim = serde_json::from_slice(&stored.payload).context("the claim cannot be read")?;
        Ok(Some((claim, stored.position)))
    }

    async fn claim(&self, email: Option<&str>) -> anyhow::Result<Value> {
        let Some(email) = email else { return Ok(Value::Null) };
        let claim = self.stored_claim(email).await?;
        Ok(claim.map_or(
            Value::Null,
            |(claim, position)| json!({ "position": position, "held_by": claim.holder() }),
        ))
    }

    /// The events and the last state, without anything secret; and the address.
    async fn log(&self, user: UserId) -> anyhow::Result<(Value, Option<String>)> {
        let subject = subjects::user_events(user);
        let (mut events, mut state) = (Vec::new(), None);
        let end = self.users.end().await?;
        let mut reading = Reading::new(&self.users, &[subject], Position(0), end);
        while let Some(message) = reading.next().await? {
            // What is wrong with it stands among the differences.
            let Ok(event) = Event::from_json(&message.payload) else {
                events.push(json!({ "position": message.position, "type": "unreadable" }));
                continue;
            };
            events.push(json!({
                "position": message.position,
                "revision": event.revision(),
                "type": event.fact.wire_type(),
                "time": event.time,
                "actor": event.actor,
            }));
            state = Some(event.after);
        }
        let email = match &state {
            Some(Snapshot::Present(user)) => Some(user.email.clone()),
            Some(Snapshot::Deleted(_)) | None => None,
        };
        let position =
            |stored: Option<service_kit::event_log::Stored>| stored.map(|stored| stored.position);
        let revoked = position(self.users.last(&subjects::user_revocation(user)).await?);
        // That there is one, and never what it is.
        let credential = position(self.users.last(&subjects::user_credential(user)).await?);
        let found = json!({
            "events": events,
            "state": state,
            "last_revocation": revoked,
            "credential": credential,
        });
        Ok((found, email))
    }

    async fn documents(&self, user: UserId) -> anyhow::Result<Value> {
        let database = self.views.database();
        let generations = self.views.generations().await?;
        let (of_users, of_sessions) =
            (generations.state(ViewSet::Users).live, generations.state(ViewSet::Sessions).live);
        let users = database.collection::<Document>(&users_collection(of_users));
        let document = users.find_one(doc! {"_id": user_key(user)}).await?;
        let document = document.map(|document| {
            json!({
                "position": document.get_i64("position").ok(),
                "revision": document.get_i64("revision").ok(),
                "status": document.get_str("status").ok(),
                "is_deleted": document.contains_key("deleted_at"),
                "cutoff": document.get_document("cutoff").and_then(|it| it.get_i64("position")).ok(),
            })
        });
        let of_user = doc! {"user_id": user_key(user)};
        let history = database.collection::<Document>(&history_collection(of_users));
        let sessions = database.collection::<Document>(&sessions_collection(of_sessions));
        Ok(json!({
            "user": document,
            "history": history.count_documents(of_user.clone()).await?,
            "sessions": sessions.count_documents(of_user).await?,
        }))
    }

    /// The sessions that the log has.
    async fn sessions(&self, user: UserId) -> anyhow::Result<Value> {
        let revocation = self.users.last(&subjects::user_revocation(user)).await?;
        let cutoff = match revocation {
            Some(stored) => Cutoff::of(serde_json::from_slice(&stored.payload)?, stored.position),
            None => Cutoff::default(),
        };
        let mut sessions = BTreeMap::new();
        let filters = [subjects::session_events_of(user)];
        let end = self.sessions.end().await?;
        let mut reading = Reading::new(&self.sessions, &filters, Position(0), end);
        while let Some(message) = reading.next().await? {
            // What is wrong with it stands among the differences.
            let Ok(event) = SessionEvent::from_json(&message.payload) else { continue };
            let after = event.after;
            let entry = json!({
                "session_id": after.id,
                "position": message.position,
                "revision": after.revision,
                "generation": after.generation,
                "created_at": after.created_at,
                "refreshed_at": after.refreshed_at,
                "expires_at": after.expires_at,
                "ended": after.ended,
                "is_revoked": !cutoff.spares(after.id, after.epoch),
            });
            sessions.insert(after.id, entry);
        }
        Ok(sessions.into_values().collect())
    }

    /// How much is told, and up to where.
    async fn told(&self, user: UserId) -> anyhow::Result<Value> {
        let (mut count, mut last) = (0_u64, None);
        let end = self.feed.end().await?;
        let mut reading = Reading::new(&self.feed, &of_user(user), Position(0), end);
        while let Some(message) = reading.next().await? {
            count += 1;
            last = Some((message.position, message.subject));
        }
        let (sequence, subject) = last.unzip();
        Ok(json!({ "messages": count, "last_sequence": sequence, "last_subject": subject }))
    }
}
