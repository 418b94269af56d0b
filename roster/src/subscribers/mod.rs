//! `roster subscribers`: who reads the feed, from where, and how far they are.

mod requests;
mod snapshot;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use events::feed::{FEED_STREAM, SNAPSHOTS_STREAM};
use events::{Position, ServiceNames, Timestamp, subjects};
use nats_access::{API_PREFIX, Role, SubscriberName, Trust};
use serde_json::json;
use service_kit::ambient;
use service_kit::config::Settings;
use service_kit::event_log::{Beginning, EventLog, Limits, NewSubscriber, Subscriber};
use service_kit::keys::write_private;
use service_kit::nats;

use crate::audit::{self, Ended, Operation};
use crate::cli::{SubscribersAction, SubscribersArgs, WrongUse, failed, progress, say};
use crate::replay::Point;
use crate::{provision, trust};
pub use requests::{From, filter, name};

/// Runs one action. Exit code 1 when there is no such subscriber.
pub async fn run(settings: Settings, args: SubscribersArgs) -> anyhow::Result<ExitCode> {
    let client = nats::connect(&settings.nats, "operator").await?;
    let feed = EventLog::new(client.clone(), FEED_STREAM, Limits::of(&settings));
    let users = EventLog::new(client.clone(), subjects::USERS_STREAM, Limits::of(&settings));
    let operator = Operator { feed, users, settings: &settings, as_json: args.json };
    let (operation, arguments, name, change) = match args.action {
        SubscribersAction::List => return operator.list().await,
        SubscribersAction::Lag { name } => return operator.lag(name.as_deref()).await,
        SubscribersAction::Add { name, filters, from, in_flight, ack_wait_s, creds } => {
            check(&name, &filters, from)?;
            let arguments = json!({
                "name": name.as_str(), "filters": filters, "from": from.to_string(),
                "in_flight": in_flight, "ack_wait_s": ack_wait_s,
            });
            let wish = Wish { filters, from, in_flight, ack_wait: Duration::from_secs(ack_wait_s) };
            (Operation::SubscribersAdd, arguments, name, Change::Add(wish, creds))
        }
        SubscribersAction::Creds { name, creds } => {
            let arguments = json!({ "name": name.as_str() });
            (Operation::SubscribersCreds, arguments, name, Change::Credentials(creds))
        }
        SubscribersAction::Remove { name } => {
            (Operation::SubscribersRemove, json!({ "name": name.as_str() }), name, Change::Remove)
        }
    };
    let changing = operator.change(&name, change);
    audit::over(&settings, &client, operation, arguments, changing).await
}

/// Refuses what cannot be before anything begins.
fn check(name: &SubscriberName, words: &[String], from: From) -> anyhow::Result<()> {
    if ServiceNames::is_of_a_service(name.as_str()) {
        return Err(WrongUse(format!(
            "{name} is a name of a service in Roster's own account: take one without -service"
        ))
        .into());
    }
    if is_own_consumer(name.as_str()) {
        return Err(WrongUse(format!(
            "{name} is a name of Roster's own: take one that says who reads"
        ))
        .into());
    }
    if from == From::Snapshot && !requests::has_all_of_users(&requests::filters(words)?) {
        let why = "a snapshot is of users: the filters must let all of users.v1.*.* through";
        return Err(WrongUse(why.to_owned()).into());
    }
    Ok(())
}

/// Whether a consumer or a NATS user of Roster's own has a name.
fn is_own_consumer(name: &str) -> bool {
    let streams = [subjects::USERS_STREAM, subjects::MAILS_STREAM, FEED_STREAM, SNAPSHOTS_STREAM];
    Role::ALL.iter().any(|role| role.name() == name)
        || streams
            .iter()
            .any(|stream| provision::consumer_names(stream).iter().any(|consumer| consumer == name))
}

/// What to do about one.
enum Change {
    Add(Wish, Option<PathBuf>),
    Credentials(Option<PathBuf>),
    Remove,
}

/// The NATS users that a change made and revoked, by their public keys.
struct Users {
    made: Option<String>,
    revoked: Vec<String>,
}

struct Operator<'a> {
    feed: EventLog,
    users: EventLog,
    settings: &'a Settings,
    as_json: bool,
}

/// What a new subscriber is to be like.
struct Wish {
    filters: Vec<String>,
    from: From,
    in_flight: u32,
    ack_wait: Duration,
}

impl Operator<'_> {
    async fn change(&self, name: &SubscriberName, change: Change) -> anyhow::Result<Ended> {
        let changed = match change {
            Change::Add(wish, creds) => Some(self.add(name, wish, creds).await?),
            Change::Credentials(creds) => self.credentials(name, creds).await?,
            Change::Remove => self.remove(name).await?,
        };
        let Some(Users { made, revoked }) = changed else {
            let code = failed(&format!("there is no subscriber {name}"));
            return Ok(Ended { code, result: json!({ "name": name.as_str(), "found": false }) });
        };
        let result =
            json!({ "name": name.as_str(), "found": true, "user": made, "revoked": revoked });
        Ok(Ended { code: ExitCode::SUCCESS, result })
    }

    async fn add(
        &self,
        name: &SubscriberName,
        wish: Wish,
        creds: Option<PathBuf>,
    ) -> anyhow::Result<Users> {
        let filters = requests::filters(&wish.filters)?;
        let from = wish.from;
        if !requests::has_deletions(&filters) {
            progress(
                "warning: the filters do not let users.v1.deleted.* through, so it is not told who must be erased: \
                 right only for a subscriber that keeps nothing of a person",
            );
        }
        // Before anything is made: without keys there would be a consumer that nobody can use.
        let trust = trust::open(self.settings)?;
        let creds = creds.unwrap_or_else(|| PathBuf::from(format!("{name}.creds")));
        if creds.exists() {
            bail!("{} is there already: name another file with --creds", creds.display());
        }
        if self.feed.subscriber(name.as_str()).await?.is_some() {
            bail!("there is a subscriber {name} already: remove it first, or take another name");
        }
        // Where the feed ends now: a snapshot is of here, and its subscriber goes on from here.
        let end = self.feed.end().await?;
        let beginning = match from {
            From::Start => Beginning::Start,
            From::Now => Beginning::Now,
            From::At(Point::Time(time)) => Beginning::Time(time),
            From::Snapshot => Beginning::Sequence(Position(end.0 + 1)),
            From::At(Point::Position(position)) => {
                let feed = (&self.feed, end);
                Beginning::Sequence(requests::sequence_of(feed, &self.users, position).await?)
            }
        };
        let subscriber = NewSubscriber {
            name: name.as_str(),
            filters: &filters,
            beginning,
            from: &from.to_string(),
            in_flight: wish.in_flight,
            ack_wait: wish.ack_wait,
        };
        self.feed.add_subscriber(&subscriber).await.context("cannot make the consumer")?;
        if from == From::Snapshot
            && let Err(error) = snapshot::write(self, name, end, wish.ack_wait).await
        {
            // Half of the states would be worse than none.
            self.feed.remove_subscriber(name.as_str()).await.context("some of it is left")?;
            return Err(error.context("cannot write the snapshot; the subscriber was not added"));
        }
        self.hand_out(&trust, name, &creds, Vec::new())
    }

    /// New credentials of a subscriber. Those from before are revoked.
    async fn credentials(
        &self,
        name: &SubscriberName,
        creds: Option<PathBuf>,
    ) -> anyhow::Result<Option<Users>> {
        if self.feed.subscriber(name.as_str()).await?.is_none() {
            return Ok(None);
        }
        let creds = creds.unwrap_or_else(|| PathBuf::from(format!("{name}.creds")));
        if creds.exists() {
            bail!("{} is there already: name another file with --creds", creds.display());
        }
        let mut trust = trust::open(self.settings)?;
        let revoked = trust.revoke_subscriber(&trust::dir(self.settings), name)?;
        self.hand_out(&trust, name, &creds, revoked).map(Some)
    }

    /// Writes credentials and says everything that a client needs.
    fn hand_out(
        &self,
        trust: &Trust,
        name: &SubscriberName,
        creds: &Path,
        revoked: Vec<String>,
    ) -> anyhow::Result<Users> {
        let made = trust.new_subscriber(&trust::dir(self.settings), name)?;
        write_private(creds, made.text.as_bytes())?;
        let user = made.user;
        let (inbox_prefix, nats) = (name.inbox_prefix(), nats::shown(&self.settings.nats.url));
        let creds = creds.display();
        if self.as_json {
            let answer = json!({
                "subscriber": name.as_str(),
                "stream": FEED_STREAM,
                "consumer": name.as_str(),
                "user": user,
                "revoked": revoked,
                "api_prefix": API_PREFIX,
                "inbox_prefix": inbox_prefix,
                "creds": creds.to_string(),
                "nats": nats,
            });
            say(&answer.to_string());
        } else {
            say(&format!(
                "subscriber={name} stream={FEED_STREAM} consumer={name} api_prefix={API_PREFIX} \
                 inbox_prefix={inbox_prefix} creds={creds} nats={nats} user={user}"
            ));
        }
        told_of_revoked(&revoked);
        Ok(Users { made: Some(user), revoked })
    }

    async fn list(&self) -> anyhow::Result<ExitCode> {
        let subscribers = self.feed.subscribers().await?;
        if self.as_json {
            let items: Vec<_> = subscribers
                .iter()
                .map(|subscriber| {
                    json!({
                        "name": subscriber.name,
                        "filters": subscriber.filters,
                        "from": subscriber.from,
                        "in_flight": subscriber.in_flight,
                        "ack_wait_s": subscriber.ack_wait.as_secs(),
                        "created_at": subscriber.created_at,
                        "pending": subscriber.pending,
                        "unacknowledged": subscriber.unacknowledged,
                    })
                })
                .collect();
            say(&json!({ "items": items }).to_string());
            return Ok(ExitCode::SUCCESS);
        }
        for subscriber in &subscribers {
            let Subscriber { name, filters, from, in_flight, created_at, .. } = subscriber;
            let (filters, left) = (filters.join(" "), left(subscriber));
            say(&format!(
                "{name}  {filters}  from {from}  in flight {in_flight}  since {created_at}  {left} left"
            ));
        }
        if subscribers.is_empty() {
            say("there is no subscriber");
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn lag(&self, name: Option<&str>) -> anyhow::Result<ExitCode> {
        let mut subscribers = self.feed.subscribers().await?;
        if let Some(name) = name {
            subscribers.retain(|subscriber| subscriber.name == name);
            if subscribers.is_empty() {
                return Ok(failed(&format!("there is no subscriber {name}")));
            }
        }
        let mut items = Vec::new();
        for subscriber in &subscribers {
            let oldest = oldest_left(&self.feed, subscriber).await?;
            let age_s = oldest.map(|oldest| {
                let age = ambient::now().as_datetime() - oldest.as_datetime();
                age.num_seconds().max(0)
            });
            items.push((subscriber, age_s));
        }
        if self.as_json {
            let items: Vec<_> = items
                .iter()
                .map(|(subscriber, age_s)| {
                    json!({
                        "name": subscriber.name,
                        "pending": subscriber.pending,
                        "unacknowledged": subscriber.unacknowledged,
                        "redelivered": subscriber.redelivered,
                        "oldest_age_s": age_s,
                        "last_acknowledged_at": subscriber.acknowledged_at,
                        "is_asking": subscriber.waiting > 0,
                    })
                })
                .collect();
            say(&json!({ "items": items }).to_string());
            return Ok(ExitCode::SUCCESS);
        }
        for (subscriber, age_s) in items {
            let (name, left, redelivered) =
                (&subscriber.name, left(subscriber), subscriber.redelivered);
            let oldest =
                age_s.map(|age_s| format!(", the oldest {age_s} s old")).unwrap_or_default();
            let seen = match subscriber.acknowledged_at {
                Some(at) => format!("last acknowledged {at}"),
                None => "nothing acknowledged yet".to_owned(),
            };
            let asking = if subscriber.waiting > 0 { "asking" } else { "away" };
            say(&format!("{name}  {left} left{oldest}  {redelivered} again  {seen}  {asking}"));
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn remove(&self, name: &SubscriberName) -> anyhow::Result<Option<Users>> {
        // Before anything is removed: without keys its credentials could not be revoked.
        let mut trust = trust::open(self.settings)?;
        if !self.feed.remove_subscriber(name.as_str()).await? {
            return Ok(None);
        }
        let revoked = trust.revoke_subscriber(&trust::dir(self.settings), name)?;
        if self.as_json {
            say(&json!({ "removed": name.as_str(), "revoked": revoked }).to_string());
        } else {
            say(&format!("removed {name}"));
        }
        told_of_revoked(&revoked);
        Ok(Some(Users { made: None, revoked }))
    }
}

/// Says what makes revoked users known to the servers.
fn told_of_revoked(revoked: &[String]) {
    if !revoked.is_empty() {
        progress(&format!(
            "revoked {}: let in until the servers know; run `roster init --dir DIR`, bring DIR/nats/auth.conf to each \
             server, and have it read it with `nats-server --signal reload`",
            revoked.join(" ")
        ));
    }
}

/// Messages that a subscriber did not acknowledge yet.
const fn left(subscriber: &Subscriber) -> u64 {
    subscriber.pending + subscriber.unacknowledged
}

/// When the oldest message was stored that a subscriber did not acknowledge; `None` when there is none.
pub async fn oldest_left(
    feed: &EventLog,
    subscriber: &Subscriber,
) -> anyhow::Result<Option<Timestamp>> {
    if left(subscriber) == 0 {
        return Ok(None);
    }
    let mut oldest: Option<Timestamp> = None;
    for filter in &subscriber.filters {
        let next = feed.next(filter, subscriber.acknowledged).await?;
        let stored_at = next.map(|next| next.stored_at);
        oldest = oldest.into_iter().chain(stored_at).min();
    }
    Ok(oldest)
}
