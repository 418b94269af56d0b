//! Users and sessions of which an event cannot be read: what the views and the feed have put aside.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use events::feed::FEED_STREAM;
use events::subjects::PARKED_RETRY;
use events::{DecodeError, Event, Position, SessionEvent, Timestamp, subjects};
use futures::TryStreamExt;
use mongodb::bson::doc;
use projector::feed::parked_in_feed;
use serde_json::{Value, json};
use service_kit::ambient;
use service_kit::config::Settings;
use service_kit::event_log::{EventLog, Limits};
use service_kit::nats;
use view_kit::RetryRequest;
use views::Views;

use super::Told;

/// Messages that wait which are counted; more are said to be "at least" so many.
const COUNTED_MAX: usize = 1_000;

/// One user or session that is parked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    stream: &'static str,
    aggregate: String,
    /// Where the event stands that cannot be read.
    position: Position,
    /// Who lacks what waits.
    lacking: Vec<String>,
    why: String,
    since: Option<Timestamp>,
}

impl Item {
    /// As `list` names it.
    pub fn id(&self) -> String {
        format!("{}-{}", self.stream.to_lowercase(), self.position)
    }

    /// Whether another one is about the same user or session.
    pub fn is_of(&self, other: &Self) -> bool {
        self.stream == other.stream && self.aggregate == other.aggregate
    }

    /// For `list`.
    pub fn told(&self) -> Told {
        let since = self.since.map_or_else(|| "-".to_owned(), |at| at.to_string());
        let lacking = self.lacking.join(",");
        let age_s = self
            .since
            .map(|at| (ambient::now().as_datetime() - at.as_datetime()).num_seconds().max(0));
        let age = age_s.map_or_else(|| "-".to_owned(), |age_s| format!("{age_s} s"));
        Told {
            line: format!(
                "{}  {since}  {age}  {lacking}  {}  {}",
                self.id(),
                self.aggregate,
                self.why
            ),
            json: json!({
                "id": self.id(),
                "kind": "event",
                "stream": self.stream,
                "position": self.position,
                "aggregate": self.aggregate,
                "lacking": self.lacking,
                "why": self.why,
                "parked_at": self.since,
                "age_s": age_s,
            }),
        }
    }
}

/// What is parked, as database and feed say.
pub struct ParkedEvents {
    /// Tells the projectors to read again what is parked.
    pub wish: RetryRequest,
    users: EventLog,
    sessions: EventLog,
    feed: EventLog,
    views: Views,
}

impl ParkedEvents {
    /// The database may be away until it is asked.
    pub async fn open(settings: &Settings) -> anyhow::Result<Self> {
        let client = nats::connect(&settings.nats, "operator").await?;
        let log = |stream| EventLog::new(client.clone(), stream, Limits::of(settings));
        Ok(Self {
            wish: RetryRequest::new(client.clone(), PARKED_RETRY),
            users: log(subjects::USERS_STREAM),
            sessions: log(subjects::SESSIONS_STREAM),
            feed: log(FEED_STREAM),
            views: Views::open(&settings.mongodb.url, &settings.mongodb.database).await?,
        })
    }

    /// All of it, in order of the log.
    pub async fn list(&self) -> anyhow::Result<Vec<Item>> {
        let mut items: BTreeMap<(&'static str, u64, String), Item> = BTreeMap::new();
        let found = self
            .views
            .parked()
            .find(doc! {})
            .await
            .context("the database of the views does not answer")?;
        let found: Vec<_> = found.try_collect().await?;
        for document in found {
            let Some(stream) = known(&document.stream) else { continue };
            let key = (stream, document.position().0, document.aggregate.clone());
            let item = items.entry(key).or_insert_with(|| Item {
                stream,
                aggregate: document.aggregate.clone(),
                position: document.position(),
                lacking: Vec::new(),
                why: document.why.clone(),
                since: Some(document.since()),
            });
            item.lacking.push(document.checkpoint.clone());
        }
        for parked in parked_in_feed(&self.feed).await? {
            // Let go without a message of the feed that says so: it is not parked any more.
            let Some(why) = self.why(parked.stream, parked.position).await? else { continue };
            let key = (parked.stream, parked.position.0, parked.aggregate.clone());
            let item = items.entry(key).or_insert_with(|| Item {
                stream: parked.stream,
                aggregate: parked.aggregate.clone(),
                position: parked.position,
                lacking: Vec::new(),
                why,
                since: None,
            });
            item.lacking.push("feed".to_owned());
        }
        Ok(items.into_values().collect())
    }

    /// The one that stands before a position.
    pub async fn find(&self, stream: &str, position: Position) -> anyhow::Result<Option<Item>> {
        let mut items = self.list().await?.into_iter();
        Ok(items.find(|item| item.stream == stream && item.position == position))
    }

    /// With what waits behind it.
    pub async fn told_whole(&self, item: &Item) -> anyhow::Result<Told> {
        let mut told = item.told();
        let on = match item.stream {
            subjects::USERS_STREAM => vec!["ev.user.", "rv.user."],
            _ => vec!["ev.session."],
        };
        let on: Vec<String> = on.iter().map(|root| format!("{root}{}", item.aggregate)).collect();
        let log = self.log(item.stream);
        let waiting = log.between(&on, item.position, Position(u64::MAX), COUNTED_MAX).await?;
        let positions: Vec<Value> = waiting.iter().map(|message| json!(message.position)).collect();
        if let Some(object) = told.json.as_object_mut() {
            object.insert("waiting".to_owned(), json!(positions.len()));
            object.insert("waiting_is_more".to_owned(), json!(positions.len() == COUNTED_MAX));
            object.insert("waiting_at".to_owned(), positions.into_iter().take(20).collect());
        }
        Ok(told)
    }

    /// Removes the event that cannot be read, so that what waits behind it can go on.
    pub async fn remove(&self, item: &Item) -> anyhow::Result<()> {
        let log = self.log(item.stream);
        let Some(found) = log.at(item.position).await? else { return Ok(()) };
        if subjects::aggregate(&found.subject) != item.aggregate {
            bail!("at position {} stands something else by now", item.position);
        }
        log.erase(item.position).await.context("it may be removed or not: try again")?;
        Ok(())
    }

    /// Why an event cannot be read; `None` when it can, or is gone.
    async fn why(&self, stream: &str, position: Position) -> anyhow::Result<Option<String>> {
        let Some(message) = self.log(stream).at(position).await? else { return Ok(None) };
        let error: Option<DecodeError> = match message.subject.split_once('.').map(|(root, _)| root)
        {
            Some("ev") if stream == subjects::USERS_STREAM => {
                Event::from_json(&message.payload).err()
            }
            Some("ev") => SessionEvent::from_json(&message.payload).err(),
            _ => serde_json::from_slice::<events::StoredRevocation>(&message.payload)
                .err()
                .map(DecodeError::from),
        };
        Ok(error.map(|error| error.to_string()))
    }

    fn log(&self, stream: &str) -> &EventLog {
        if stream == subjects::SESSIONS_STREAM { &self.sessions } else { &self.users }
    }
}

fn known(stream: &str) -> Option<&'static str> {
    [subjects::USERS_STREAM, subjects::SESSIONS_STREAM].into_iter().find(|known| *known == stream)
}
