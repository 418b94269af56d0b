//! `roster users remove-unverified`: accounts that nobody has proven and nobody uses, deleted by the rules of the API.
//!
//! The log says who registered alone and is unverified still; the command side decides about each of them anew. So it may
//! be interrupted, be started again and run twice at once: whoever is gone is passed over.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow};
use command_api::{App, Removal, Unverified};
use events::{Event, Position, Snapshot, UserId, subjects};
use serde_json::json;
use service_kit::ambient;
use service_kit::config::Settings;
use service_kit::event_log::{EventLog, Limits};
use service_kit::metrics::Metrics;
use service_kit::nats;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::audit::{self, Ended, Operation};
use crate::cli::{RemoveUnverifiedArgs, WrongUse, progress, say};
use crate::reading::Reading;

/// What became of the accounts that were looked at.
struct Removed {
    users: Vec<UserId>,
    kept: usize,
}

/// Removes them. Exit code 0 also when there was nothing to remove.
pub async fn run(settings: Settings, args: RemoveUnverifiedArgs) -> anyhow::Result<ExitCode> {
    let days = args.older_than_days.unwrap_or(settings.registration.unverified_kept_days);
    if days == 0 {
        progress("registration.unverified_kept_days is 0: unverified accounts are kept for ever");
        answer(&args, &Removed { users: Vec::new(), kept: 0 });
        return Ok(ExitCode::SUCCESS);
    }
    settings.knows_logins_of(days).map_err(WrongUse).map_err(anyhow::Error::new)?;
    let client = nats::connect(&settings.nats, "operator").await?;
    let log = EventLog::new(client.clone(), subjects::USERS_STREAM, Limits::of(&settings));
    // It stands in the events too, so the audit leads to them and back.
    let reason = format!("remove-unverified-{}", ambient::new_uuid());
    let unverified = Unverified::of(&settings, days, ambient::now(), reason.clone());
    let removing = async {
        let stop = CancellationToken::new();
        let app = App::build(&settings, &Metrics::new("unverified"), stop.clone()).await?;
        let removed = remove(&app, &log, &unverified, &args).await;
        stop.cancel();
        app.finished().await;
        let removed = removed?;
        answer(&args, &removed);
        let result = json!({ "removed": removed.users.len(), "kept": removed.kept });
        Ok(Ended { code: ExitCode::SUCCESS, result })
    };
    if args.dry_run {
        return Ok(removing.await?.code);
    }
    let arguments = json!({
        "older_than_days": days, "unused_since": unverified.unused_since(), "request_id": reason,
    });
    audit::over(&settings, &client, Operation::UsersRemoveUnverified, arguments, removing).await
}

async fn remove(
    app: &App,
    log: &EventLog,
    unverified: &Unverified,
    args: &RemoveUnverifiedArgs,
) -> anyhow::Result<Removed> {
    let mut removed = Removed { users: Vec::new(), kept: 0 };
    let mut turns = interval(Duration::from_secs(1) / args.rate.max(1));
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for user in candidates(log, unverified).await? {
        turns.tick().await;
        match app.remove_unverified(user, unverified, args.dry_run).await {
            Ok(Removal::Removed | Removal::Removable) => removed.users.push(user),
            Ok(Removal::Kept) => removed.kept += 1,
            Err(why) => {
                let count = removed.users.len();
                return Err(anyhow!(why))
                    .context(format!("{count} users were removed; start it again to go on"));
            }
        }
    }
    Ok(removed)
}

/// Who registered alone and long enough ago, and is unverified as far as the log goes now.
async fn candidates(log: &EventLog, unverified: &Unverified) -> anyhow::Result<BTreeSet<UserId>> {
    let mut candidates = BTreeSet::new();
    let end = log.end().await?;
    let filters = [subjects::USER_EVENTS_FILTER];
    let mut reading = Reading::new(log, &filters, Position::default(), end);
    while let Some(message) = reading.next().await? {
        // A user with an event that cannot be read waits for the operator: `roster parked`.
        let event = if message.is_foreign { continue } else { Event::from_json(&message.payload) };
        let Ok(event) = event else { continue };
        let user = event.user_id();
        let is_unverified = matches!(&event.after, Snapshot::Present(user) if !user.email_verified);
        if unverified.begins_with(&event) {
            candidates.insert(user);
        } else if !is_unverified {
            candidates.remove(&user);
        }
    }
    Ok(candidates)
}

fn answer(args: &RemoveUnverifiedArgs, removed: &Removed) {
    let Removed { users, kept } = removed;
    if args.json {
        say(&json!({ "dry_run": args.dry_run, "removed": users, "kept": kept }).to_string());
        return;
    }
    let what = if args.dry_run { "would be removed" } else { "removed" };
    users.iter().for_each(|user| say(&format!("{user}  {what}")));
    say(&format!("{} {what}, {kept} unverified accounts kept", users.len()));
}
