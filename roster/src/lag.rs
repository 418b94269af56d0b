//! `roster lag`: how far everything is that follows the log.

use std::process::ExitCode;

use events::feed::FEED_STREAM;
use events::{Position, Timestamp, subjects};
use projector::View;
use serde::Serialize;
use serde_json::json;
use service_kit::ambient;
use service_kit::config::Settings;
use service_kit::event_log::{
    ConsumerSpec, EventLog, Limits, ProvisionError, Start, erasures, mailer_events, mailer_notices,
    mailer_orders,
};
use service_kit::nats;
use view_kit::describe;
use views::{Generations, Views};

use crate::cli::{LagArgs, say};
use crate::published::{PublishedThrough, unpublished_session_events};
use crate::subscribers::oldest_left;

/// One that follows.
#[derive(Debug, Default, Serialize)]
struct Follower {
    name: String,
    /// The last position that it has.
    position: Option<Position>,
    /// The last position that there is for it.
    end: Option<Position>,
    /// What is between the two and concerns it.
    behind: u64,
    /// Taken, and not done or put off.
    under_way: u64,
    /// Age of the oldest that it was not given, or did not acknowledge.
    oldest_age_s: Option<u64>,
    /// Why nothing is known of it.
    fault: Option<String>,
    /// Whether it may be as far behind as it is.
    #[serde(skip)]
    has_time: bool,
    is_late: bool,
}

/// Looks. Exit code 1 when something is later than the limit, or cannot be seen.
pub async fn run(settings: Settings, args: LagArgs) -> anyhow::Result<ExitCode> {
    let client = nats::connect(&settings.nats, "operator").await?;
    let log = |stream: &str| EventLog::new(client.clone(), stream, Limits::of(&settings));
    let (users, sessions) = (log(subjects::USERS_STREAM), log(subjects::SESSIONS_STREAM));
    let feed = log(FEED_STREAM);
    let views = Views::open(&settings.mongodb.url, &settings.mongodb.database).await?;

    let mut followers = of_all_views(&views, &users, &sessions).await?;
    followers.extend(of_feed(&users, &sessions, &feed).await?);
    for (name, spec) in [
        ("reactor: events for mails", mailer_events()),
        ("reactor: mails", mailer_orders()),
        ("reactor: notices", mailer_notices()),
        ("reactor: erasures", erasures()),
    ] {
        followers.push(of_consumer(name, &spec, &log(spec.stream())).await?);
    }
    let end = feed.end().await?;
    for subscriber in feed.subscribers().await? {
        followers.push(Follower {
            name: format!("subscriber {}", subscriber.name),
            position: Some(subscriber.acknowledged),
            end: Some(end),
            behind: subscriber.pending + subscriber.unacknowledged,
            under_way: subscriber.unacknowledged,
            oldest_age_s: oldest_left(&feed, &subscriber).await?.map(age_s),
            ..Follower::default()
        });
    }
    for follower in &mut followers {
        let is_behind = follower.oldest_age_s.is_some_and(|age| age > args.max_s);
        follower.is_late = follower.fault.is_some() || is_behind && !follower.has_time;
    }
    show(&followers, args.json);
    let is_late = followers.iter().any(|follower| follower.is_late);
    Ok(if is_late { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The views that are read, and those that stand beside them.
async fn of_all_views(
    views: &Views,
    users: &EventLog,
    sessions: &EventLog,
) -> anyhow::Result<Vec<Follower>> {
    let generations = match views.generations().await {
        Ok(generations) => generations,
        Err(error) => {
            let fault = Some(describe(&error));
            let name = "views".to_owned();
            return Ok(vec![Follower { name, fault, ..Follower::default() }]);
        }
    };
    let mut followers = Vec::new();
    for view in View::ALL {
        let log = match view {
            View::Users => users,
            View::Logins | View::Sessions => sessions,
        };
        for number in generations.state(view.set()).all() {
            let name = name_of(view, number, &generations);
            let position = views.position(&view.checkpoint(number)).await?;
            let follower = behind(name, log, view.filters(), position).await?;
            // One that nobody reads, or waits for, has its time.
            let has_time = !generations.state(view.set()).waited_for().any(|one| one == number);
            followers.push(Follower { has_time, ..follower });
        }
    }
    Ok(followers)
}

fn name_of(view: View, number: u32, generations: &Generations) -> String {
    let name = match view {
        View::Users => "views of users",
        View::Logins => "logins in the views of users",
        View::Sessions => "views of sessions",
    };
    let standby = generations.state(view.set()).standby.filter(|standby| standby.number == number);
    standby.map_or_else(
        || name.to_owned(),
        |standby| format!("{name}, generation {number} ({})", standby.phase),
    )
}

/// How far somebody is who has everything on `filters` up to a position.
async fn behind(
    name: String,
    log: &EventLog,
    filters: &[&str],
    position: Position,
) -> anyhow::Result<Follower> {
    let oldest = first_behind(log, filters, position).await?;
    let count = match oldest {
        None => 0,
        Some(_) => log.follow(filters, Start::Behind(position)).await?.pending,
    };
    let mut end = position;
    for filter in filters {
        end = end.max(log.last(filter).await?.map_or(Position(0), |last| last.position));
    }
    Ok(Follower {
        name,
        position: Some(position),
        end: Some(end),
        behind: count,
        oldest_age_s: oldest.map(age_s),
        ..Follower::default()
    })
}

async fn first_behind(
    log: &EventLog,
    filters: &[&str],
    position: Position,
) -> anyhow::Result<Option<Timestamp>> {
    let mut oldest = None;
    for filter in filters {
        let next = log.next(filter, position).await?.map(|next| next.stored_at);
        oldest = oldest.into_iter().chain(next).min();
    }
    Ok(oldest)
}

/// The feed says how far it tells of each log.
async fn of_feed(
    users: &EventLog,
    sessions: &EventLog,
    feed: &EventLog,
) -> anyhow::Result<[Follower; 2]> {
    let told = PublishedThrough::of(feed).await?;
    let name = "feed, of users".to_owned();
    let of_users = behind(name, users, &[subjects::USER_EVENTS_FILTER], told.users).await?;
    let last = sessions.last(subjects::SESSION_EVENTS_FILTER).await?;
    let end = last.map_or(told.sessions, |last| last.position);
    let untold =
        unpublished_session_events((users, sessions), told.sessions, end, u64::MAX).await?;
    let of_sessions = Follower {
        name: "feed, of sessions".to_owned(),
        position: Some(told.sessions),
        end: Some(end),
        behind: untold.count,
        oldest_age_s: untold.oldest.map(age_s),
        ..Follower::default()
    };
    Ok([of_users, of_sessions])
}

async fn of_consumer(name: &str, spec: &ConsumerSpec, log: &EventLog) -> anyhow::Result<Follower> {
    let name = name.to_owned();
    let backlog = match log.verify_consumer(spec).await {
        Ok(backlog) => backlog,
        Err(ProvisionError::Read(error)) => return Err(error.into()),
        Err(fault) => {
            let fault = Some(fault.to_string());
            return Ok(Follower { name, fault, ..Follower::default() });
        }
    };
    let filters: Vec<&str> = spec.filters().collect();
    // What is put off is not late: it was tried, and has its time.
    let oldest = match backlog.pending {
        0 => None,
        _ => first_behind(log, &filters, backlog.delivered).await?,
    };
    Ok(Follower {
        name,
        position: Some(backlog.delivered),
        end: Some(log.end().await?),
        behind: backlog.pending,
        under_way: backlog.under_way,
        oldest_age_s: oldest.map(age_s),
        ..Follower::default()
    })
}

fn age_s(since: Timestamp) -> u64 {
    let age = ambient::now().as_datetime() - since.as_datetime();
    u64::try_from(age.num_seconds()).unwrap_or(0)
}

fn show(followers: &[Follower], as_json: bool) {
    if as_json {
        say(&json!({ "items": followers }).to_string());
        return;
    }
    for follower in followers {
        let Follower {
            name, position, end, behind, under_way, oldest_age_s, fault, is_late, ..
        } = follower;
        let mut line = name.clone();
        if let Some(fault) = fault {
            line.push_str(&format!("  {fault}"));
        }
        if let (Some(position), Some(end)) = (position, end) {
            line.push_str(&format!("  at {position} of {end}  {behind} behind"));
        }
        if let Some(age_s) = oldest_age_s {
            line.push_str(&format!(", the oldest {age_s} s old"));
        }
        if *under_way > 0 {
            line.push_str(&format!("  {under_way} under way"));
        }
        if *is_late {
            line.push_str("  LATE");
        }
        say(&line);
    }
}
