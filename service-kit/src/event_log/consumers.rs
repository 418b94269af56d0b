//! The consumers of a stream, as the operator sees them: those that stay when nobody reads from them any more.
//!
//! A stream has a limited number of consumers, and whoever may make one on the log (every verifier may) may also have it
//! stay for years. Roster's own readers make theirs anew at each start, so a stream that is full of consumers keeps them
//! from starting (ADR 28).

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::read::refusal;
use super::{EventLog, ReadError};

/// "consumer not found".
const CONSUMER_NOT_FOUND: u64 = 10014;
/// "maximum consumers limit reached".
pub(super) const CONSUMERS_LIMIT: u64 = 10026;
/// How long a consumer may stay behind its reader. Roster's own and those of its clients stay for half of that.
const LINGERS_MAX: Duration = Duration::from_secs(60);

/// A consumer of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerState {
    /// Its name.
    pub name: String,
    /// Whether the server keeps it whatever happens.
    pub is_durable: bool,
    /// How long the server keeps it when nobody reads; zero for one that is kept for ever.
    pub kept: Duration,
}

impl ConsumerState {
    /// Whether it is still there long after its reader has gone.
    #[must_use]
    pub fn stays(&self) -> bool {
        self.is_durable || self.kept.is_zero() || self.kept > LINGERS_MAX
    }
}

#[derive(Deserialize)]
struct Page {
    total: usize,
    consumers: Vec<Info>,
}

#[derive(Deserialize)]
struct Info {
    name: String,
    config: Config,
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    durable_name: Option<String>,
    #[serde(default)]
    inactive_threshold: u64,
}

impl From<Info> for ConsumerState {
    fn from(Info { name, config }: Info) -> Self {
        let kept = Duration::from_nanos(config.inactive_threshold);
        Self { name, is_durable: config.durable_name.is_some(), kept }
    }
}

impl EventLog {
    /// All consumers of the stream, by name. Needs the operator's rights.
    ///
    /// # Errors
    /// [`ReadError`]: nobody knows.
    pub async fn consumers(&self) -> Result<Vec<ConsumerState>, ReadError> {
        let (mut found, mut offset) = (Vec::new(), 0);
        loop {
            let path = format!("CONSUMER.LIST.{}", self.stream);
            let answer = self.request_json(&path, &json!({ "offset": offset })).await?;
            if let Some(error) = answer.get("error") {
                return Err(refusal(error));
            }
            let page: Page = serde_json::from_value(answer)
                .map_err(|error| ReadError::Refused(error.to_string()))?;
            offset += page.consumers.len();
            let is_last = page.consumers.is_empty() || offset >= page.total;
            found.extend(page.consumers.into_iter().map(ConsumerState::from));
            if is_last {
                found.sort_by(|one: &ConsumerState, other| one.name.cmp(&other.name));
                found.dedup();
                return Ok(found);
            }
        }
    }

    /// Removes a consumer. `false` when there was none of that name. Needs the operator's rights.
    ///
    /// # Errors
    /// [`ReadError`]: it may be there still.
    pub async fn remove_consumer(&self, name: &str) -> Result<bool, ReadError> {
        let path = format!("CONSUMER.DELETE.{}.{name}", self.stream);
        let answer = self.request_json(&path, &json!({})).await?;
        match answer.get("error") {
            None => Ok(true),
            Some(error)
                if error.get("err_code").and_then(Value::as_u64) == Some(CONSUMER_NOT_FOUND) =>
            {
                Ok(false)
            }
            Some(error) => Err(refusal(error)),
        }
    }
}
