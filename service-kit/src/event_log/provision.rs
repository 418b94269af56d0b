//! The stream as it must be: made by the operator's command, only checked by services.
//!
//! A running service holds no right to create or change a stream, because whoever may update one may
//! also shrink it to nothing.

use std::borrow::Cow;
use std::time::Duration;

use events::{feed, subjects};
use serde_json::{Map, Value, json};

use super::read::refusal;
use super::{EventLog, ReadError};
use crate::config::{Audit, Feed, Log, Security, Sessions};
use crate::security::{SECURITY_STREAM, SECURITY_STREAM_SUBJECTS};

/// Oldest server whose atomic batches and leader reads were found sound.
pub const SERVER_VERSION_MIN: (i64, i64, i64) = (2, 14, 4);
/// The command that makes what Roster itself needs.
pub(super) const MADE_BY_ROSTER: &str = "roster provision";
/// "stream not found".
pub(super) const STREAM_NOT_FOUND: u64 = 10059;
/// Member with what is noted on a stream.
const METADATA: &str = "metadata";
/// Note that names the log, so that views of another one are not taken for its own. It is drawn when the stream is
/// made, and anew when it is restored: what was stored behind a backup is another history from then on.
pub(super) const LINEAGE: &str = "roster-lineage";
/// Note that a restore was begun, with the time of it. Nobody may use the stream before it is ended.
pub(super) const UNFINISHED: &str = "roster-restore";
/// Member with what a stream takes in.
const SUBJECTS: &str = "subjects";
/// Member with the bound of a stream.
const BYTES: &str = "max_bytes";
/// Window in which the server remembers message ids.
const DUPLICATE_WINDOW_NS: u64 = 120_000_000_000;

/// In words, what is wrong with a stream that has nothing of what is wanted.
const FOREIGN_FAULT: &str = "none of its subjects is one of these: it belongs to another service";
/// In words, what a stream lacks whose restore was begun.
const UNFINISHED_FAULT: &str =
    "it is being restored, or a restore broke off: run `roster restore` again";

/// How much longer than any session its messages are kept.
const SESSION_LIFE_MARGIN: Duration = Duration::from_secs(24 * 60 * 60);
/// Messages kept of one session. More than one, so that a refresh whose outcome is unknown can be looked
/// up behind those that came after it.
const SESSION_MESSAGES_KEPT: u32 = 16;
/// How long a mail that was parked waits for somebody.
const MAIL_KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// The stream behind the bucket `THROTTLE`: how often something was tried. The name and the subjects are
/// those of a key-value bucket, so that the tools of NATS can show it.
pub const THROTTLE_STREAM: &str = "KV_THROTTLE";
/// Before the key in a subject of [`THROTTLE_STREAM`].
pub const THROTTLE_SUBJECT_PREFIX: &str = "$KV.THROTTLE.";
/// The stream with copies of what [`THROTTLE_STREAM`] says of accounts whose password is delayed or closed.
pub const THROTTLE_CLOSED_STREAM: &str = "KV_THROTTLE_CLOSED";
/// Before the key in a subject of [`THROTTLE_CLOSED_STREAM`].
pub const THROTTLE_CLOSED_SUBJECT_PREFIX: &str = "$KV.THROTTLE_CLOSED.";
/// The stream with what is counted without a verdict.
pub const THROTTLE_COUNTS_STREAM: &str = "KV_THROTTLE_COUNTS";
/// Before the key in a subject of [`THROTTLE_COUNTS_STREAM`].
pub const THROTTLE_COUNTS_SUBJECT_PREFIX: &str = "$KV.THROTTLE_COUNTS.";
/// Longest life of a record in [`THROTTLE_STREAM`].
pub const THROTTLE_RECORD_LIFE: Duration = Duration::from_hours(30 * 24);

/// The stream with what operators did.
pub const OPERATIONS_STREAM: &str = "OPERATIONS";
/// Before the name of a command in a subject of [`OPERATIONS_STREAM`].
pub const OPERATIONS_SUBJECT_PREFIX: &str = "op.";

/// How a stream must be configured. Members that are absent from the server's answer count as
/// `false` or 0, as the server leaves them out.
#[derive(Debug, Clone)]
pub struct StreamSpec {
    name: Cow<'static, str>,
    /// The command that makes it.
    made_by: Cow<'static, str>,
    config: Map<String, Value>,
    /// Whether the stream is a source of truth that views are built from.
    has_lineage: bool,
}

/// The log cannot be used as it is.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    /// The log does not answer.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// There is no stream yet.
    #[error("the stream {stream} does not exist: run `{made_by}` with the operator's credentials")]
    Missing {
        /// Its name.
        stream: Cow<'static, str>,
        /// The command that makes it.
        made_by: Cow<'static, str>,
    },
    /// There is no such consumer yet.
    #[error(
        "the consumer {consumer} of {stream} does not exist: run `{made_by}` with the operator's credentials"
    )]
    MissingConsumer {
        /// Its stream.
        stream: Cow<'static, str>,
        /// Its name.
        consumer: Cow<'static, str>,
        /// The command that makes it.
        made_by: Cow<'static, str>,
    },
    /// The consumer differs from what Roster needs.
    #[error("the consumer {consumer} of {stream} must not be used: {}", faults.join("; "))]
    DifferentConsumer {
        /// Its stream.
        stream: Cow<'static, str>,
        /// Its name.
        consumer: Cow<'static, str>,
        /// Every difference, in words.
        faults: Vec<String>,
    },
    /// The stream differs from what Roster needs.
    #[error("the stream {stream} must not be used: {}", faults.join("; "))]
    Different {
        /// Its name.
        stream: Cow<'static, str>,
        /// Every difference, in words.
        faults: Vec<String>,
    },
    /// The server is too old.
    #[error("nats-server {found} is too old: {}.{}.{} or newer is needed", SERVER_VERSION_MIN.0, SERVER_VERSION_MIN.1, SERVER_VERSION_MIN.2)]
    ServerTooOld {
        /// Its version.
        found: String,
    },
}

/// The stream of users.
#[must_use]
pub fn users_stream(log: &Log) -> StreamSpec {
    StreamSpec::log(subjects::USERS_STREAM, "the event log of users", log.replicas, log.bytes_max)
        .with_lineage()
        .with("subjects", json!(subjects::USERS_STREAM_SUBJECTS))
}

/// The stream of sessions. No message is needed any more once no session can be as old; of the many
/// refreshes of one session only the last are kept.
#[must_use]
pub fn sessions_stream(log: &Log, sessions: &Sessions) -> StreamSpec {
    let max_age = Duration::from_secs(sessions.absolute_s) + SESSION_LIFE_MARGIN;
    let (replicas, bytes_max) = (log.replicas, log.sessions_bytes_max);
    StreamSpec::log(subjects::SESSIONS_STREAM, "the event log of sessions", replicas, bytes_max)
        .with_lineage()
        .with("subjects", json!(subjects::SESSIONS_STREAM_SUBJECTS))
        .with("max_age", nanoseconds(max_age))
        .with("max_msgs_per_subject", json!(SESSION_MESSAGES_KEPT))
}

/// The stream of mails: an order goes when its mail was sent, a parked one when somebody saw to it.
#[must_use]
pub fn mails_stream(log: &Log) -> StreamSpec {
    let (replicas, bytes_max) = (log.replicas, log.mails_bytes_max);
    StreamSpec::log(subjects::MAILS_STREAM, "mails to be sent", replicas, bytes_max)
        .with("subjects", json!(subjects::MAILS_STREAM_SUBJECTS))
        .with("retention", json!("workqueue"))
        .with("max_age", nanoseconds(MAIL_KEPT))
}

/// The feed for other services. Nothing goes from it but what erasure takes, and events of sessions when
/// their time is over: when it is full it waits for the operator.
#[must_use]
pub fn feed_stream(log: &Log, settings: &Feed) -> StreamSpec {
    let description = "what other services are told";
    StreamSpec::log(feed::FEED_STREAM, description, log.replicas, settings.bytes_max)
        .with("subjects", json!(feed::FEED_STREAM_SUBJECTS))
}

/// The states that subscribers begin with; each goes when its subscriber has it.
#[must_use]
pub fn snapshots_stream(log: &Log, settings: &Feed) -> StreamSpec {
    let description = "states for new subscribers of the feed";
    let bytes_max = settings.snapshots_bytes_max;
    StreamSpec::log(feed::SNAPSHOTS_STREAM, description, log.replicas, bytes_max)
        .with("subjects", json!(feed::SNAPSHOTS_STREAM_SUBJECTS))
        .with("retention", json!("workqueue"))
        // The operator takes back what a subscriber that is removed did not fetch.
        .with("deny_purge", json!(false))
}

/// What operators did. Nobody takes anything out of it, and nothing gives way to what comes later.
#[must_use]
pub fn operations_stream(log: &Log, settings: &Audit) -> StreamSpec {
    let description = "what operators did";
    StreamSpec::log(OPERATIONS_STREAM, description, log.replicas, settings.bytes_max)
        .with("subjects", json!([format!("{OPERATIONS_SUBJECT_PREFIX}*")]))
        .with("max_age", nanoseconds(Duration::from_secs(settings.kept_s)))
        .with("allow_msg_ttl", json!(false))
        // No user is in it but by id, so there is nothing to erase.
        .with("deny_delete", json!(true))
}

/// Who tried to get in. The oldest records give way: a full stream must keep nobody from logging in, and what happens
/// now is worth more than what is nearly over.
#[must_use]
pub fn security_stream(log: &Log, settings: &Security) -> StreamSpec {
    let description = "who tried to get in";
    StreamSpec::log(SECURITY_STREAM, description, log.replicas, settings.bytes_max)
        .with("subjects", json!(SECURITY_STREAM_SUBJECTS))
        .with("discard", json!("old"))
        .with("max_age", nanoseconds(Duration::from_secs(settings.kept_s)))
        .with("allow_msg_ttl", json!(false))
}

/// The bucket of the throttle. One message a key: the log of attempts is of no use, and a guard on the
/// last one is all that a record needs.
#[must_use]
pub fn throttle_stream(log: &Log) -> StreamSpec {
    let description = "how often something was tried";
    bucket(THROTTLE_STREAM, THROTTLE_SUBJECT_PREFIX, description, log, log.throttle_bytes_max)
        .with("discard", json!("old"))
}

/// The bucket with the accounts that are delayed or closed. Full, it refuses: what closes an account never gives way
/// to what comes later.
#[must_use]
pub fn throttle_closed_stream(log: &Log) -> StreamSpec {
    let (name, prefix) = (THROTTLE_CLOSED_STREAM, THROTTLE_CLOSED_SUBJECT_PREFIX);
    bucket(name, prefix, "which accounts are closed", log, log.throttle_closed_bytes_max)
}

/// The bucket with mails, requests and what users do rightly. Anybody can fill it without a password, so it is no part
/// of [`throttle_stream`].
#[must_use]
pub fn throttle_counts_stream(log: &Log) -> StreamSpec {
    let (name, prefix) = (THROTTLE_COUNTS_STREAM, THROTTLE_COUNTS_SUBJECT_PREFIX);
    bucket(name, prefix, "how often something was done", log, log.throttle_counts_bytes_max)
        .with("discard", json!("old"))
}

fn bucket(
    name: &'static str,
    prefix: &str,
    description: &str,
    log: &Log,
    bytes_max: u64,
) -> StreamSpec {
    StreamSpec::log(name, description, log.replicas, bytes_max)
        .with("subjects", json!([format!("{prefix}>")]))
        .with("max_msgs_per_subject", json!(1))
        .with("max_age", nanoseconds(THROTTLE_RECORD_LIFE))
        .with("compression", json!("none"))
        // Readers ask the leader: a follower may not know the last attempt yet.
        .with("allow_direct", json!(false))
        .with("allow_atomic", json!(false))
        // The operator may open everything again.
        .with("deny_purge", json!(false))
}

fn nanoseconds(time: Duration) -> Value {
    json!(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}

impl StreamSpec {
    /// What every stream has in common.
    pub(super) fn log(
        name: impl Into<Cow<'static, str>>,
        description: &str,
        replicas: u8,
        bytes_max: u64,
    ) -> Self {
        let name = name.into();
        let config = json!({
            "name": name,
            "description": format!("Roster: {description}"),
            "retention": "limits",
            "storage": "file",
            "num_replicas": replicas,
            "discard": "new",
            "max_bytes": bytes_max,
            "max_msgs": -1,
            "max_msgs_per_subject": -1,
            "max_age": 0,
            "max_consumers": -1,
            "compression": "s2",
            "allow_direct": true,
            "allow_atomic": true,
            "allow_msg_ttl": true,
            "allow_rollup_hdrs": false,
            // Secure delete of single messages is how erasure works; purge would be history gone.
            "deny_delete": false,
            "deny_purge": true,
            "duplicate_window": DUPLICATE_WINDOW_NS,
        });
        let config = if let Value::Object(config) = config { config } else { Map::new() };
        Self { name, made_by: MADE_BY_ROSTER.into(), config, has_lineage: false }
    }

    /// The stream's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) const fn config(&self) -> &Map<String, Value> {
        &self.config
    }

    pub(super) fn with(mut self, key: &str, value: Value) -> Self {
        self.config.insert(key.to_owned(), value);
        self
    }

    pub(super) fn made_by(mut self, command: String) -> Self {
        self.made_by = command.into();
        self
    }

    pub(super) const fn with_lineage(mut self) -> Self {
        self.has_lineage = true;
        self
    }

    /// What is noted on the stream, with a lineage if it needs one and has none yet.
    fn metadata(&self, found: &Map<String, Value>) -> Map<String, Value> {
        let mut metadata = own_metadata(found);
        if self.has_lineage {
            let drawn = || json!(crate::ambient::new_uuid().to_string());
            metadata.entry(LINEAGE).or_insert_with(drawn);
        }
        metadata
    }

    fn lacks_lineage(&self, found: &Map<String, Value>) -> bool {
        self.has_lineage && !own_metadata(found).contains_key(LINEAGE)
    }

    /// Whether what is there takes in nothing of what this is to take in: then it is somebody else's.
    fn is_foreign(&self, found: &Map<String, Value>) -> bool {
        let subjects =
            |of: &Map<String, Value>| of.get(SUBJECTS).and_then(Value::as_array).cloned();
        let (found, wanted) = (subjects(found), subjects(&self.config));
        let (found, wanted) = (found.unwrap_or_default(), wanted.unwrap_or_default());
        !found.is_empty() && !wanted.iter().any(|subject| found.contains(subject))
    }

    /// Every difference between what is there and what must be.
    fn faults(&self, found: &Map<String, Value>) -> Vec<String> {
        let mut faults = Vec::new();
        for (key, wanted) in &self.config {
            // The operator may choose a larger or smaller bound, and more copies; "no bound" is a fault.
            let fine = match (key.as_str(), found.get(key)) {
                ("description", _) => true,
                (BYTES, Some(bytes)) => bytes.as_i64().is_some_and(|bytes| bytes > 0),
                // Longer than needed is as good; for ever (0) is not, with addresses and devices in it.
                ("max_age", Some(age)) if wanted.as_u64() > Some(0) => {
                    age.as_u64() >= wanted.as_u64()
                }
                ("num_replicas", Some(copies)) => copies.as_u64() >= wanted.as_u64(),
                (_, Some(value)) => value == wanted,
                (_, None) => matches!(wanted, Value::Bool(false)) || wanted.as_i64() == Some(0),
            };
            if !fine {
                let has = found.get(key).map_or_else(|| "nothing".to_owned(), Value::to_string);
                faults.push(format!("{key} is {has} and must be {wanted}"));
            }
        }
        if own_metadata(found).contains_key(UNFINISHED) {
            faults.push(UNFINISHED_FAULT.to_owned());
        }
        for dangerous in ["mirror", "sources", "subject_transform", "republish", "sealed"] {
            if found
                .get(dangerous)
                .is_some_and(|value| !matches!(value, Value::Bool(false) | Value::Null))
            {
                faults.push(format!("{dangerous} must not be set"));
            }
        }
        faults
    }
}

/// What is noted on a stream, without what the server notes itself.
pub(super) fn own_metadata(config: &Map<String, Value>) -> Map<String, Value> {
    let noted = config.get(METADATA).and_then(Value::as_object).cloned().unwrap_or_default();
    noted.into_iter().filter(|(key, _)| !key.starts_with("_nats.")).collect()
}

impl EventLog {
    /// Creates the stream, or brings its configuration to what it must be. A bound of bytes is raised to what
    /// the settings say, and never lowered: what the server does with messages beyond a new bound is not for
    /// this command to find out. Needs the operator's rights.
    ///
    /// # Errors
    /// [`ProvisionError`]; nothing was changed unless it is [`ProvisionError::Different`].
    pub async fn provision(&self, spec: &StreamSpec) -> Result<(), ProvisionError> {
        self.check_server()?;
        let mut config = spec.config.clone();
        let action = match self.config(spec).await {
            Ok(found) => {
                if own_metadata(&found).contains_key(UNFINISHED) {
                    let faults = vec![UNFINISHED_FAULT.to_owned()];
                    return Err(ProvisionError::Different { stream: spec.name.clone(), faults });
                }
                if spec.is_foreign(&found) {
                    // To change its subjects would be to take it from whoever writes to it.
                    return Err(ProvisionError::Different {
                        stream: spec.name.clone(),
                        faults: vec![FOREIGN_FAULT.to_owned()],
                    });
                }
                let bytes = |of: &Map<String, Value>| of.get(BYTES).and_then(Value::as_i64);
                let has_room = bytes(&found) >= bytes(&config);
                if has_room && spec.faults(&found).is_empty() && !spec.lacks_lineage(&found) {
                    return Ok(());
                }
                config.insert(METADATA.to_owned(), Value::Object(spec.metadata(&found)));
                if has_room && let Some(bytes) = found.get(BYTES) {
                    config.insert(BYTES.to_owned(), bytes.clone());
                }
                "UPDATE"
            }
            Err(ProvisionError::Missing { .. }) => {
                config.insert(METADATA.to_owned(), Value::Object(spec.metadata(&Map::new())));
                "CREATE"
            }
            Err(error) => return Err(error),
        };
        let path = format!("STREAM.{action}.{}", spec.name);
        let answer = self.request_json(&path, &Value::Object(config)).await?;
        if let Some(error) = answer.get("error") {
            return Err(refusal(error).into());
        }
        self.verify(spec).await
    }

    /// Checks server and stream; what every service does at its start.
    ///
    /// # Errors
    /// [`ProvisionError`] names every difference. Do not start.
    pub async fn verify(&self, spec: &StreamSpec) -> Result<(), ProvisionError> {
        self.check_server()?;
        let faults = spec.faults(&self.config(spec).await?);
        if faults.is_empty() {
            Ok(())
        } else {
            Err(ProvisionError::Different { stream: spec.name.clone(), faults })
        }
    }

    /// Everything that [`EventLog::provision`] would change: what a service refuses, and a bound that is lower
    /// than the settings say.
    ///
    /// # Errors
    /// [`ProvisionError`], also when there is no stream.
    pub async fn differences(&self, spec: &StreamSpec) -> Result<Vec<String>, ProvisionError> {
        self.check_server()?;
        let found = self.config(spec).await?;
        let mut faults = spec.faults(&found);
        let bytes = |of: &Map<String, Value>| of.get(BYTES).and_then(Value::as_i64);
        if let (Some(has), Some(wanted)) = (bytes(&found), bytes(&spec.config))
            && has > 0
            && has < wanted
        {
            faults.push(format!("{BYTES} is {has} and the settings say {wanted}"));
        }
        if spec.lacks_lineage(&found) {
            faults.push("it has no name by which views can tell it from another log".to_owned());
        }
        Ok(faults)
    }

    async fn config(&self, spec: &StreamSpec) -> Result<Map<String, Value>, ProvisionError> {
        let path = format!("STREAM.INFO.{}", spec.name);
        let mut answer = self.request_json(&path, &json!({})).await?;
        if answer.pointer("/error/err_code").and_then(Value::as_u64) == Some(STREAM_NOT_FOUND) {
            let (stream, made_by) = (spec.name.clone(), spec.made_by.clone());
            return Err(ProvisionError::Missing { stream, made_by });
        }
        if let Some(error) = answer.get("error") {
            return Err(refusal(error).into());
        }
        match answer.get_mut("config").map(Value::take) {
            Some(Value::Object(config)) => Ok(config),
            _ => Err(ReadError::Refused("no configuration in the answer".to_owned()).into()),
        }
    }

    pub(super) fn check_server(&self) -> Result<(), ProvisionError> {
        let (major, minor, patch) = SERVER_VERSION_MIN;
        if self.client.is_server_compatible(major, minor, patch) {
            return Ok(());
        }
        Err(ProvisionError::ServerTooOld { found: self.client.server_info().version })
    }
}
