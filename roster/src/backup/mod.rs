//! `roster backup`: the log, the feed and the keys in a folder. Views are not in it: they are built from the log.
//!
//! Each stream is copied as of the moment at which it is asked for, while everything goes on. They are asked for one
//! after the other, what is derived before what it is derived from: first the feed, then the sessions, then the
//! users. So the feed never tells what the log does not hold, and no session is without its user.

pub mod crypt;
pub mod folder;
pub mod keys;
pub mod revocation_delta;

use std::process::ExitCode;

use anyhow::{Context, bail};
use events::feed::FEED_STREAM;
use events::subjects;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use service_kit::ambient;
use service_kit::config::{Deployment, Settings};
use service_kit::event_log::{EventLog, Limits, Unpacker};
use service_kit::key_ring::Ring;
use service_kit::keys::APPLICATION_KEY_FILE;
use service_kit::nats;
use tokio::time::Instant;

use crate::audit::{self, Ended, Operation};
use crate::cli::{BackupArgs, progress, say};
use crate::preflight::private_file;
use crypt::{Identity, Recipient};
use folder::{Backup, Manifest, StreamCopy, SubscriberCopy, Unfinished, format_of, key_check};

/// In the order in which they are copied.
const STREAMS: [&str; 3] = [FEED_STREAM, subjects::SESSIONS_STREAM, subjects::USERS_STREAM];

/// Makes a backup, or looks at one, or brings what ended since up to date.
pub async fn run(settings: Settings, args: BackupArgs) -> anyhow::Result<ExitCode> {
    if args.check {
        let mut backup = Backup::open(&args.dir)?;
        backup.check()?;
        if let Some(file) = &args.identity {
            private_file(&settings, "--identity", file)?;
            backup.unlock(Identity::read(file)?)?;
        }
        // Without the identity only the checksums can be looked at.
        let is_readable = backup.manifest.encrypted.is_none() || args.identity.is_some();
        let until = if is_readable {
            revocation_delta::RevocationDelta::read(&backup)?.until
        } else {
            None
        };
        return report(&backup, until, args.json);
    }
    if let Some(file) = &args.recipient {
        // It signs.
        private_file(&settings, "--recipient", file)?;
    }
    let recipient = args.recipient.as_deref().map(Recipient::read).transpose()?;
    if args.ends {
        let backup = Backup::open(&args.dir)?;
        let ends = revocation_delta::collect(&settings, &backup, recipient.as_ref()).await?;
        let deleted = ends.users.values().filter(|ends| ends.deleted).count();
        let users = ends.users.values().filter(|ends| ends.takes()).count();
        let (until, sessions) = (ends.until, ends.sessions.len());
        if args.json {
            let found =
                json!({ "until": until, "users": users, "deleted": deleted, "sessions": sessions });
            say(&found.to_string());
        } else {
            say(&format!(
                "since the backup access ended for {users} users, {deleted} of them deleted, and for {sessions} \
                 sessions"
            ));
        }
        return Ok(ExitCode::SUCCESS);
    }
    if recipient.is_none() && !args.plain && settings.deployment == Deployment::Production {
        bail!(
            "a backup holds keys and personal data: name the --recipient that it is encrypted to (`roster keys backup` \
             makes one), or take --plain and encrypt it yourself"
        );
    }
    let client = nats::connect(&settings.nats, "operator").await?;
    let backing_up = async {
        let code = whole(&settings, &args, recipient.as_ref()).await?;
        Ok(Ended { code, result: json!({ "id": Backup::open(&args.dir)?.manifest.id }) })
    };
    audit::over(&settings, &client, Operation::Backup, json!({}), backing_up).await
}

/// A new one.
async fn whole(
    settings: &Settings,
    args: &BackupArgs,
    recipient: Option<&Recipient>,
) -> anyhow::Result<ExitCode> {
    let began = Instant::now();
    make(settings, args, recipient).await?;
    let backup = Backup::open(&args.dir)?;
    let bytes: u64 = backup.manifest.streams.iter().map(|stream| stream.file.bytes).sum();
    let seconds = began.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "shown to people")]
    let rate = bytes as f64 / 1e6 / seconds;
    let care = match recipient {
        Some(_) => "It is encrypted:",
        None => "The folder holds keys and personal data: encrypt it, and",
    };
    progress(&format!(
        "{bytes} bytes in {seconds:.1} s ({rate:.1} MB/s). {care} keep it no longer than docs/erasure.md says. Run \
         `roster backup {} --ends` every few minutes",
        args.dir.display()
    ));
    report(&backup, None, args.json)
}

async fn make(
    settings: &Settings,
    args: &BackupArgs,
    recipient: Option<&Recipient>,
) -> anyhow::Result<()> {
    let key_file = settings.secrets.dir.join(APPLICATION_KEY_FILE);
    let ring = Ring::read(&key_file)?;
    let client = nats::connect(&settings.nats, "operator").await?;
    let log = |stream| EventLog::new(client.clone(), stream, Limits::of(settings));
    let id = ambient::new_uuid();
    let (secret, encrypted) = match recipient {
        None => (None, None),
        Some(recipient) => {
            let (secret, wrapped) = recipient.new_key(id)?;
            (Some(secret), Some(wrapped))
        }
    };
    let folder = Unfinished::begin(&args.dir, secret)?;
    let files = keys::copy(settings, &folder)?;
    // Before the feed is: what they acknowledge meanwhile is told them again, and nothing is missed.
    let subscribers = log(FEED_STREAM).subscribers().await?;
    let taken_at = ambient::now();
    let mut streams = Vec::new();
    for (number, name) in STREAMS.into_iter().enumerate() {
        let style =
            ProgressStyle::with_template("{spinner} {bytes}  {bytes_per_sec}  {elapsed}  {msg}")?;
        let bar = ProgressBar::new_spinner().with_style(style);
        bar.set_message(format!("{name}, {} of {}", number + 1, STREAMS.len()));
        let copied = copy(&log(name), &folder, &bar).await;
        streams.push(copied.with_context(|| format!("cannot copy {name}"))?);
        bar.finish_and_clear();
    }
    if *Ring::read(&key_file)?.text() != *ring.text() {
        bail!(
            "the application key was rotated while the backup was made, which lacks what opens it: make it again"
        );
    }
    let manifest = Manifest {
        format: format_of(encrypted.as_ref()),
        encrypted,
        id,
        roster: env!("CARGO_PKG_VERSION").to_owned(),
        nats_server: client.server_info().version,
        taken_at,
        key_check: key_check(ring.oldest(), id),
        streams,
        files,
        subscribers: subscribers.into_iter().map(SubscriberCopy::from).collect(),
    };
    folder.end(&manifest, recipient)
}

async fn copy(
    log: &EventLog,
    folder: &Unfinished,
    bar: &ProgressBar,
) -> anyhow::Result<StreamCopy> {
    let standing = log.standing().await?.context("there is no such stream")?;
    if standing.unfinished {
        bail!("it is being restored");
    }
    let mut file = folder.file(&format!("{}.snapshot", log.stream()))?;
    let mut snapshot = log.snapshot().await?;
    // What could not be unpacked could not be restored: this is seen now, and not on that day.
    let mut unpacker = Unpacker::default();
    while let Some(piece) = snapshot.next().await? {
        unpacker.take(&piece)?;
        file.add(&piece)?;
        bar.inc(piece.len() as u64);
    }
    unpacker.end()?;
    let head = snapshot.head.clone();
    Ok(StreamCopy {
        name: log.stream().to_owned(),
        lineage: standing.lineage,
        first: head.first(),
        last: head.last(),
        messages: head.messages(),
        file: file.end()?,
        head,
    })
}

fn report(
    backup: &Backup,
    ends_until: Option<events::Timestamp>,
    as_json: bool,
) -> anyhow::Result<ExitCode> {
    let Manifest { id, taken_at, streams, roster, .. } = &backup.manifest;
    if as_json {
        let streams: Vec<_> = streams
            .iter()
            .map(|stream| {
                let StreamCopy { name, first, last, messages, file, .. } = stream;
                json!({
                    "name": name, "first": first, "last": last, "messages": messages, "bytes": file.bytes,
                })
            })
            .collect();
        let found = json!({
            "id": id, "encrypted": backup.manifest.encrypted.is_some(), "roster": roster, "taken_at": taken_at, "ends_until": ends_until, "streams": streams,
        });
        say(&found.to_string());
        return Ok(ExitCode::SUCCESS);
    }
    let how = if backup.manifest.encrypted.is_some() { "encrypted" } else { "not encrypted" };
    say(&format!("backup {id}, taken at {taken_at}, is whole and {how}"));
    for StreamCopy { name, first, last, messages, file, .. } in streams {
        let bytes = file.bytes;
        say(&format!("{name}  {messages} messages, positions {first} to {last}  {bytes} bytes"));
    }
    if let Some(until) = ends_until {
        say(&format!("what ended since is known until {until}"));
    }
    Ok(ExitCode::SUCCESS)
}
