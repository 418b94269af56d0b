//! The system that is restored into: it must be empty.

use anyhow::bail;
use events::feed::{FEED_STREAM, SNAPSHOTS_STREAM};
use events::subjects;
use service_kit::event_log::{
    EventLog, Standing, THROTTLE_CLOSED_STREAM, THROTTLE_COUNTS_STREAM, THROTTLE_STREAM,
};

use crate::cli::progress;

/// Those that are restored; the one that keeps services away goes last, and comes first.
const RESTORED: [&str; 3] = [FEED_STREAM, subjects::SESSIONS_STREAM, subjects::USERS_STREAM];
/// Those that are made anew.
const BESIDE: [&str; 5] = [
    subjects::MAILS_STREAM,
    THROTTLE_STREAM,
    THROTTLE_CLOSED_STREAM,
    THROTTLE_COUNTS_STREAM,
    SNAPSHOTS_STREAM,
];

/// Removes what is there when it is empty, or what a restore has left that broke off. Refuses otherwise, and has
/// changed nothing then.
pub async fn clear(log: &impl Fn(&str) -> EventLog) -> anyhow::Result<()> {
    let mut there = Vec::new();
    for name in RESTORED.into_iter().chain(BESIDE) {
        if let Some(standing) = log(name).standing().await? {
            there.push((name, standing));
        }
    }
    let broke_off = there.iter().any(|(_, standing)| standing.unfinished);
    if broke_off {
        progress("a restore broke off here: it begins again");
    }
    for (name, standing) in &there {
        if is_used(standing) && !(broke_off && RESTORED.contains(name)) {
            bail!(
                "this system is not empty: {name} ends at position {}. Restore into another account or server; if \
                 what is here has to go, remove its streams first (`nats stream rm`), with the services stopped",
                standing.end
            );
        }
    }
    for name in RESTORED {
        if there.iter().any(|(found, _)| *found == name) {
            if !broke_off {
                progress(&format!("{name} is empty, and is replaced"));
            }
            log(name).remove().await?;
        }
    }
    Ok(())
}

const fn is_used(standing: &Standing) -> bool {
    standing.end.0 > 0 || standing.messages > 0
}
