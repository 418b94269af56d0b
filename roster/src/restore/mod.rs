//! `roster restore`: a backup into an empty system.
//!
//! Every stream is marked as unfinished from its first moment until all is done, by which the services refuse it and
//! `roster provision` leaves it alone. So a restore that breaks off is begun again, and meanwhile nobody can use, or
//! add to, half of a log.

mod apply;
mod target;

use std::io::Read;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use command_api::RestoreReconciler;
use events::feed::FEED_STREAM;
use events::{Position, subjects};
use indicatif::ProgressBar;
use serde_json::json;
use service_kit::ambient;
use service_kit::config::{Deployment, Settings};
use service_kit::event_log::{
    Beginning, EventLog, Limits, NewSubscriber, StreamSpec, Unpacker, beginning, feed_stream,
    sessions_stream, users_stream,
};
use service_kit::nats;

use crate::audit::{Audit, Operation};
use crate::backup::crypt::Identity;
use crate::backup::folder::{Backup, StreamCopy, bar};
use crate::backup::keys;
use crate::backup::revocation_delta::RevocationDelta;
use crate::cli::{RestoreArgs, progress, say};
use crate::preflight::private_file;
use crate::provision;
use apply::Applied;

/// Bytes of a file that are read at once.
const PIECE_BYTES: usize = 64 << 10;

/// Restores. Nothing is changed before the backup is known to be whole and the system to be empty.
pub async fn run(settings: Settings, args: RestoreArgs) -> anyhow::Result<ExitCode> {
    let mut backup = Backup::open(&args.dir)?;
    match &args.identity {
        Some(file) => {
            private_file(&settings, "--identity", file)?;
            backup.unlock(Identity::read(file)?)?;
        }
        None if settings.deployment == Deployment::Production && !args.plain => bail!(
            "name the --identity that the backup was made for: without it nothing shows who made it. Take --plain for one \
             that is not encrypted and that nobody else could have changed"
        ),
        None => {}
    }
    backup.check()?;
    if let Some(root) = &args.keys {
        keys::restore(&backup, root)?;
        say_keys(root, args.json);
        return Ok(ExitCode::SUCCESS);
    }
    let ends = RevocationDelta::read(&backup)?;
    let root = keys::root(&settings, &backup)?;
    let client = nats::connect(&settings.nats, "operator").await?;
    let log = |stream: &str| EventLog::new(client.clone(), stream, Limits::of(&settings));
    target::clear(&log).await?;

    // The users first: without them no service starts, and from then on none does because of the mark.
    let specs = [
        users_stream(&settings.log),
        sessions_stream(&settings.log, &settings.sessions),
        feed_stream(&settings.log, &settings.feed),
    ];
    let bytes = specs.iter().map(|spec| Ok(backup.manifest.stream(spec.name())?.file.bytes));
    let bar = bar(bytes.sum::<anyhow::Result<u64>>()?, "restoring")?;
    for spec in &specs {
        let copy = backup.manifest.stream(spec.name())?;
        bar.set_message(copy.name.clone());
        stream(&log(&copy.name), spec, &backup, copy, &bar)
            .await
            .with_context(|| format!("cannot restore {}; run it again to begin anew", copy.name))?;
    }
    bar.finish_and_clear();
    for name in [subjects::USERS_STREAM, subjects::SESSIONS_STREAM] {
        log(name).drop_half_batch().await?;
    }
    let restorer = RestoreReconciler::new(&settings, &log, ends.ring()?.as_ref())?;
    let applied = apply::all(&settings, &restorer, &log, &ends, args.keep_sessions).await?;
    let begun = command_api::begin_lineage(&log, args.keep_sessions).await;
    begun.context("cannot name the history of the log")?;
    subscribers(&log(FEED_STREAM), &backup).await?;
    // Behind what was applied: the mailer begins with what happens from now on.
    provision::beside(&settings, &specs.each_ref().map(StreamSpec::name)).await?;
    // Here is the first place to write it down: before there was none.
    let arguments = json!({ "id": backup.manifest.id, "keep_sessions": args.keep_sessions });
    let audit = Audit::begin(&settings, &client, Operation::Restore, arguments).await?;
    keys::renew(&root)?;
    for name in [FEED_STREAM, subjects::SESSIONS_STREAM, subjects::USERS_STREAM] {
        log(name).finish_restore().await?;
    }
    audit.done(json!({ "deleted": applied.deleted, "sessions": applied.sessions })).await?;
    report(&backup, &ends, &applied, &root, &args);
    Ok(ExitCode::SUCCESS)
}

/// One stream, in pieces that the server has stored before it could lose patience.
async fn stream(
    log: &EventLog,
    spec: &StreamSpec,
    backup: &Backup,
    copy: &StreamCopy,
    bar: &ProgressBar,
) -> anyhow::Result<()> {
    let mut file = backup.reader(&copy.file)?;
    let restoring = log.restore(spec, &copy.head, ambient::now()).await?;
    let mut unpacker = Unpacker::default();
    let mut piece = vec![0; PIECE_BYTES];
    let mut ahead = beginning().to_vec();
    loop {
        let read = file.read(&mut piece)?;
        let Some(piece) = piece.get(..read).filter(|piece| !piece.is_empty()) else { break };
        for frame in unpacker.take(piece)? {
            ahead.extend(frame);
            restoring.send(std::mem::take(&mut ahead)).await?;
        }
        bar.inc(piece.len() as u64);
    }
    ahead.extend(unpacker.end()?);
    if !ahead.is_empty() {
        restoring.send(ahead).await?;
    }
    restoring.end().await?;
    let end = log.end().await?;
    if end < copy.last {
        bail!("it ends at {end} and must end at {}", copy.last);
    }
    Ok(())
}

/// Lets subscribers go on behind what they had acknowledged when the feed was copied.
async fn subscribers(feed: &EventLog, backup: &Backup) -> anyhow::Result<()> {
    for copy in &backup.manifest.subscribers {
        let subscriber = NewSubscriber {
            name: &copy.name,
            filters: &copy.filters,
            beginning: Beginning::Sequence(Position(copy.acknowledged.0 + 1)),
            from: &copy.from,
            in_flight: u32::try_from(copy.in_flight).unwrap_or(1),
            ack_wait: Duration::from_secs(copy.ack_wait_s),
        };
        let cannot = || format!("cannot make the consumer of the subscriber {}", copy.name);
        feed.add_subscriber(&subscriber).await.with_context(cannot)?;
    }
    Ok(())
}

fn say_keys(root: &Path, as_json: bool) {
    let root = root.display();
    if as_json {
        say(&json!({ "keys": root.to_string() }).to_string());
        return;
    }
    say(&format!(
        "the keys are in {root}: start nats-server with {root}/nats/auth.conf, then restore with secrets.dir set to \
         {root}/operator"
    ));
}

fn report(
    backup: &Backup,
    ends: &RevocationDelta,
    applied: &Applied,
    root: &Path,
    args: &RestoreArgs,
) {
    let taken_at = backup.manifest.taken_at;
    let known_until = ends.until.unwrap_or(taken_at);
    if args.json {
        let done = json!({
            "taken_at": taken_at,
            "ends_known_until": known_until,
            "deleted_again": applied.deleted,
            "users_taken_from": applied.users,
            "unknown_users": applied.unknown,
            "addresses_changed": applied.addresses,
            "sessions_ended": applied.sessions,
            "links_voided": applied.links,
            "keys": root.display().to_string(),
        });
        say(&done.to_string());
        return;
    }
    say(&format!("restored as of {taken_at}: what was changed after that is lost"));
    say(&format!(
        "{} users were deleted again, access ended for {}, {} sessions and {} links",
        applied.deleted, applied.users, applied.sessions, applied.links
    ));
    for user in &applied.addresses {
        say(&format!("{user} had changed the address, and has the old one again"));
    }
    say(&format!(
        "deletions, disabled users and changed passwords are known until {known_until}; whoever was deleted after \
         that is here again: delete them again"
    ));
    if args.keep_sessions {
        say(&format!(
            "sessions live on: one that ended after {known_until} is open again, and so is a refresh token that was \
             replaced after {taken_at}"
        ));
    }
    let root = root.display();
    progress(&format!(
        "the keys of access tokens are new: bring {root}/command-api and {root}/query-api to their services. Views \
         of before do not fit: start the projector with an empty database. Then run `roster verify`"
    ));
}
