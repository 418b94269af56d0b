//! `roster replay`: events of the feed once more, for one subscriber, into a file or to standard output.
//!
//! What is replayed is what other services are told, and never an event of the log: those hold what is secret.
//! Nothing of a user who is deleted goes out but the deletion, whether the eraser has been there yet or not.

mod queue;
mod range;
mod sink;

use std::collections::{BTreeMap, HashSet};
use std::process::ExitCode;

use anyhow::Context;
use async_nats::Client;
use events::feed::{DELETED, FEED_STREAM};
use events::{Position, UserId};
use indicatif::{ProgressBar, ProgressStyle};
use nats_access::SubscriberName;
use serde_json::{Value, json};
use service_kit::config::Settings;
use service_kit::event_log::{EventLog, Followed, Limits, Subscriber};
use service_kit::nats;
use tokio::time::{Duration, Instant, sleep_until};

use crate::audit::{self, Ended, Operation};
use crate::cli::{ReplayArgs, progress, say};
use crate::reading::Reading;
pub use range::{Point, known_kind, position};
use range::{Range, filters};
use sink::Sink;

/// Events that are handed over at once.
const BATCH_EVENTS_MAX: usize = 500;

/// Replays a range. Exit code 1 when there is no such subscriber.
pub async fn run(settings: Settings, args: ReplayArgs) -> anyhow::Result<ExitCode> {
    let client = nats::connect(&settings.nats, "operator").await?;
    let replay = Replay::prepare(&settings, &client, &args).await?;
    if args.dry_run {
        return Ok(replay.run(Sink::Nowhere).await?.code);
    }
    let arguments = json!({
        "from": args.from.map(|point| point.to_string()),
        "to": args.to.map(|point| point.to_string()),
        "users": args.users,
        "types": args.kinds,
        "rate": args.rate,
        "subscriber": args.to_subscriber.as_ref().map(SubscriberName::as_str),
        "is_file": args.file.is_some(),
    });
    let replaying = async {
        let sink = match (&replay.subscriber, &args.file) {
            (Some(subscriber), _) => {
                Sink::Queue(Box::new(queue::Queue::open(&settings, &client, subscriber).await?))
            }
            (None, Some(path)) => Sink::file(path)?,
            (None, None) => Sink::stdout(),
        };
        replay.run(sink).await
    };
    audit::over(&settings, &client, Operation::Replay, arguments, replaying).await
}

/// What is to be replayed.
struct Replay<'a> {
    feed: EventLog,
    args: &'a ReplayArgs,
    range: Range,
    /// As the server filters.
    filters: Vec<String>,
    subscriber: Option<Subscriber>,
}

/// What went out.
#[derive(Debug, Default)]
struct Tally {
    events: u64,
    by_type: BTreeMap<String, u64>,
    /// Left out, since their user is deleted.
    of_deleted: u64,
}

impl<'a> Replay<'a> {
    async fn prepare(
        settings: &Settings,
        client: &Client,
        args: &'a ReplayArgs,
    ) -> anyhow::Result<Self> {
        let feed = EventLog::new(client.clone(), FEED_STREAM, Limits::of(settings));
        let filters = filters(&args.kinds, &args.users)?;
        let subscriber = match &args.to_subscriber {
            None => None,
            Some(name) => {
                let found = feed.subscriber(name.as_str()).await?;
                Some(found.with_context(|| format!("there is no subscriber {name}"))?)
            }
        };
        let range = Range::of(&feed, args.from, args.to).await?;
        Ok(Self { feed, args, range, filters, subscriber })
    }

    /// Hands out the range, batch by batch.
    async fn run(&self, mut sink: Sink) -> anyhow::Result<Ended> {
        let Range { behind, end } = self.range;
        let bar = ProgressBar::new(end.0.saturating_sub(behind.0))
            .with_style(ProgressStyle::with_template("{wide_bar} {percent}%  {msg}  {eta} left")?);
        let mut gone = Gone::new(&self.feed, &self.args.users);
        let mut events = Reading::new(&self.feed, &self.filters, behind, end).of_roster();
        let (started, mut tally) = (Instant::now(), Tally::default());
        loop {
            let batch = self.batch(&mut events).await?;
            let Some(last) = batch.last().map(|event| event.position) else { break };
            gone.look().await?;
            let (out, left_out): (Vec<_>, Vec<_>) =
                batch.into_iter().partition(|event| !gone.has(event));
            tally.of_deleted += left_out.len() as u64;
            self.keep_the_rate(started, tally.events).await;
            if !sink.take(&out).await? {
                break;
            }
            // Who was deleted meanwhile may have been erased before theirs was stored.
            let deleted = gone.look().await?;
            sink.forget(&deleted).await?;
            for event in &out {
                tally.events += 1;
                *tally.by_type.entry(kind(event).to_owned()).or_default() += 1;
            }
            bar.set_position(last.0.saturating_sub(behind.0));
            let seconds = started.elapsed().as_secs_f64().max(0.001);
            #[expect(clippy::cast_precision_loss, reason = "shown to somebody")]
            bar.set_message(format!("{:.0} events/s", tally.events as f64 / seconds));
        }
        bar.finish_and_clear();
        let place = sink.finish().await?;
        self.tell(&tally, &place);
        Ok(Ended { code: ExitCode::SUCCESS, result: tally.json() })
    }

    /// The next events that are wanted; none behind the last.
    async fn batch(&self, events: &mut Reading) -> anyhow::Result<Vec<Followed>> {
        // Ten steps in a second keep the rate without handing out one by one.
        let rate = self.args.rate.map_or(BATCH_EVENTS_MAX, |rate| rate as usize / 10);
        let max = rate.clamp(1, BATCH_EVENTS_MAX);
        let mut batch = Vec::with_capacity(max);
        while batch.len() < max
            && let Some(event) = events.next().await?
        {
            if self.is_let_through(&event) {
                batch.push(event);
            }
        }
        Ok(batch)
    }

    /// A subscriber is given nothing that it is not told anyway.
    fn is_let_through(&self, event: &Followed) -> bool {
        self.subscriber.as_ref().is_none_or(|subscriber| {
            subscriber.filters.iter().any(|filter| fits(&event.subject, filter))
        })
    }

    async fn keep_the_rate(&self, started: Instant, sent: u64) {
        if let Some(rate) = self.args.rate {
            #[expect(clippy::cast_precision_loss, reason = "a wait need not be exact")]
            let due = Duration::from_secs_f64(sent as f64 / f64::from(rate));
            sleep_until(started + due).await;
        }
    }

    fn tell(&self, tally: &Tally, place: &sink::Place) {
        // Standard output belongs to the events where they go there.
        let to_stdout = *place == sink::Place::Stdout;
        if self.args.json {
            let text = tally.json().to_string();
            if to_stdout {
                progress(&text)
            } else {
                say(&text)
            }
            return;
        }
        let mut text = format!("{} events", tally.events);
        for (kind, count) in &tally.by_type {
            text.push_str(&format!("  {kind} {count}"));
        }
        if tally.of_deleted > 0 {
            text.push_str(&format!("  (and {} of users who are deleted)", tally.of_deleted));
        }
        match place {
            sink::Place::Nowhere => say(&format!("would replay {text}")),
            sink::Place::Stdout => progress(&text),
            sink::Place::File(path) => say(&format!("{text}  in {}", path.display())),
            sink::Place::Queue(name) => say(&format!("{text}  wait for {name}")),
        }
    }
}

impl Tally {
    fn json(&self) -> Value {
        let Self { events, by_type, of_deleted } = self;
        json!({ "events": events, "by_type": by_type, "of_deleted": of_deleted })
    }
}

/// The users that the feed says are gone.
struct Gone<'a> {
    feed: &'a EventLog,
    filters: Vec<String>,
    users: HashSet<UserId>,
    /// Deletions up to here are known.
    known: Position,
}

impl<'a> Gone<'a> {
    fn new(feed: &'a EventLog, users: &[UserId]) -> Self {
        let mut filters: Vec<String> =
            users.iter().map(|user| format!("{DELETED}.{user}")).collect();
        if filters.is_empty() {
            filters.push(format!("{DELETED}.*"));
        }
        Self { feed, filters, users: HashSet::new(), known: Position(0) }
    }

    /// Looks at what was told since the last look, and says who is gone since then.
    async fn look(&mut self) -> anyhow::Result<Vec<UserId>> {
        let end = self.feed.end().await?;
        let mut new = Vec::new();
        if end > self.known {
            let mut deletions = Reading::new(self.feed, &self.filters, self.known, end);
            while let Some(deletion) = deletions.next().await? {
                // What nobody of Roster wrote deletes nobody.
                new.extend(user_in(&deletion.subject).filter(|_| !deletion.is_foreign));
            }
            self.known = end;
            self.users.extend(&new);
        }
        Ok(new)
    }

    /// Whether an event may not go out any more.
    fn has(&self, event: &Followed) -> bool {
        kind(event) != DELETED
            && user_in(&event.subject).is_some_and(|user| self.users.contains(&user))
    }
}

/// The user that a subject of the feed ends with.
fn user_in(subject: &str) -> Option<UserId> {
    subject.rsplit('.').next()?.parse().ok()
}

/// The type of an event of the feed, which its subject begins with.
fn kind(event: &Followed) -> &str {
    event.subject.rsplit_once('.').map_or("", |(kind, _)| kind)
}

/// Whether a subject fits a filter with `*` for whole words.
fn fits(subject: &str, filter: &str) -> bool {
    let (mut words, mut wanted) = (subject.split('.'), filter.split('.'));
    loop {
        match (words.next(), wanted.next()) {
            (None, None) => return true,
            (Some(_), Some("*")) => {}
            (Some(word), Some(other)) if word == other => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_lets_through_what_the_server_would() {
        assert!(fits("users.v1.deleted.x", "users.v1.*.*"));
        assert!(fits("users.v1.deleted.x", "users.v1.deleted.x"));
        assert!(!fits("users.v1.deleted.x", "sessions.v1.*.*"));
        assert!(!fits("users.v1.deleted.x", "users.v1.*"));
        assert!(!fits("users.v1.deleted", "users.v1.deleted.*"));
    }
}
