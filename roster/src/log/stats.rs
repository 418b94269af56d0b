//! `roster events stats`: how many events of each type there are, by day or by hour.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::ValueEnum;
use events::{Cause, Position};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use service_kit::event_log::EventLog;

use super::Stream;
use crate::cli::say;
use crate::reading::Reading;

/// What the events are counted by, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum By {
    /// By day
    Day,
    /// By hour
    Hour,
}

impl By {
    /// How much of a time in RFC 3339 tells it.
    const fn digits(self) -> usize {
        match self {
            Self::Day => "2026-01-31".len(),
            Self::Hour => "2026-01-31T12".len(),
        }
    }
}

/// Counts everything that is there. Memory grows with days and types, and not with events.
pub async fn run(
    log: &impl Fn(Stream) -> EventLog,
    streams: &[Stream],
    by: By,
    as_json: bool,
) -> anyhow::Result<ExitCode> {
    let mut counts: BTreeMap<(String, String), u64> = BTreeMap::new();
    let mut totals: BTreeMap<String, u64> = BTreeMap::new();
    for stream in streams {
        let log = log(*stream);
        let end = log.end().await?;
        let bar = ProgressBar::new(end.0).with_message(stream.name()).with_style(
            ProgressStyle::with_template("{wide_bar} {percent}%  {per_sec}  {eta} left  {msg}")?,
        );
        let mut events = Reading::new(&log, &stream.filters(None), Position(0), end).of_roster();
        while let Some(event) = events.next().await? {
            bar.set_position(event.position.0);
            let cause = Cause::of(&event.payload);
            let kind = cause.map_or_else(|| "unreadable".to_owned(), |cause| cause.kind);
            let when: String = event.stored_at.to_string().chars().take(by.digits()).collect();
            *totals.entry(kind.clone()).or_default() += 1;
            *counts.entry((when, kind)).or_default() += 1;
        }
        bar.finish_and_clear();
    }
    if as_json {
        let items: Vec<Value> = counts
            .iter()
            .map(|((when, kind), count)| json!({"when": when, "type": kind, "count": count}))
            .collect();
        say(&json!({ "items": items, "totals": totals }).to_string());
        return Ok(ExitCode::SUCCESS);
    }
    for ((when, kind), count) in &counts {
        say(&format!("{when}  {kind}  {count}"));
    }
    for (kind, count) in &totals {
        say(&format!("in all  {kind}  {count}"));
    }
    Ok(ExitCode::SUCCESS)
}
