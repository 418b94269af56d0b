//! `roster verify`: whether log, views, feed and claims say the same, while everything runs.
//!
//! Everything is compared as of one position: the end of the log at the beginning, once views and feed have
//! reached it. What changes later is not compared: before a difference is reported the log is asked whether
//! whom it is about has changed since.
//!
//! The log is read once, in order, and the history and the feed are walked along beside it, as they have its
//! order. So what is in memory is one state for each user and session that is checked, and no events.

mod claims;
mod compare;
mod documents;
mod edge;
mod feed;
mod known;
mod ordered;
mod report;
mod sessions;
mod users;

use std::collections::{BTreeSet, HashMap};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use events::feed::FEED_STREAM;
use events::{Position, SessionId, Timestamp, UserId, subjects};
use indicatif::{ProgressBar, ProgressStyle};
use mongodb::bson::{Document, doc};
use service_kit::ambient;
use service_kit::config::Settings;
use service_kit::event_log::{EventLog, Limits};
use service_kit::keys::SecretKey;
use service_kit::lookup_keys::LookupKeys;
use service_kit::nats;
use views::{Generations, ViewSet, Views, user_key};

use crate::cli::VerifyArgs;
use crate::published::is_gone;
use edge::Edge;
use known::{Known, KnownSession};
use report::Difference;
pub use report::Report;

/// What expires about now may be there or not: clocks differ, and the database removes when it has time.
const EXPIRY_MARGIN_S: u64 = 60 * 60;

/// Who is checked.
#[derive(Debug, Clone, Copy)]
enum Scope {
    /// Every so many-th user.
    Sample(u64),
    /// One user alone, of whom alone is read.
    One(UserId),
}

/// Which documents are compared, and whether anything else is.
#[derive(Debug, Clone, Copy)]
pub struct Compared {
    users: u32,
    sessions: u32,
    /// Both sets and everything else; or the views of one set alone, or of both.
    views_alone: Option<(bool, bool)>,
}

impl Compared {
    /// The views that are live, and everything else.
    fn everything(generations: &Generations) -> Self {
        let live = |set| generations.state(set).live;
        Self { users: live(ViewSet::Users), sessions: live(ViewSet::Sessions), views_alone: None }
    }

    /// Some generations alone.
    pub fn views(of: &[(ViewSet, u32)]) -> Self {
        let number = |set| of.iter().find(|(of, _)| *of == set).map(|(_, number)| *number);
        let (users, sessions) = (number(ViewSet::Users), number(ViewSet::Sessions));
        Self {
            users: users.unwrap_or_default(),
            sessions: sessions.unwrap_or_default(),
            views_alone: Some((users.is_some(), sessions.is_some())),
        }
    }

    const fn number(self, set: ViewSet) -> u32 {
        match set {
            ViewSet::Users => self.users,
            ViewSet::Sessions => self.sessions,
        }
    }

    fn has(self, set: ViewSet) -> bool {
        self.views_alone.is_none_or(|(users, sessions)| match set {
            ViewSet::Users => users,
            ViewSet::Sessions => sessions,
        })
    }

    const fn is_views_alone(self) -> bool {
        self.views_alone.is_some()
    }
}

/// The streams that are compared.
pub struct Streams {
    users: EventLog,
    sessions: EventLog,
    feed: EventLog,
}

/// Everything that is known while it is compared.
struct Verifier {
    streams: Streams,
    views: Views,
    compared: Compared,
    claim_key: SecretKey,
    edge: Edge,
    scope: Scope,
    /// From here on an event of a session must be in the feed.
    told_since: Timestamp,
    /// What the log says of sessions that are older may be gone from it.
    logged_since: Timestamp,
    report: Report,
    bar: ProgressBar,
    known: HashMap<UserId, Known>,
    sessions: HashMap<SessionId, KnownSession>,
    /// Who holds an address, by the keyed hash of it.
    claims: HashMap<u128, (UserId, Position)>,
    admins: BTreeSet<UserId>,
}

/// Compares. Exit code 1 when there is a difference.
pub async fn run(settings: Settings, args: VerifyArgs) -> anyhow::Result<ExitCode> {
    let report = Report::new(args.max);
    let wait = Duration::from_secs(args.wait_s);
    let scope = Scope::Sample(args.sample);
    let mut verifier = Verifier::new(&settings, scope, None, wait, report).await?;
    let edge = verifier.edge;
    verifier.with_a_bar().await?;
    verifier.report.show(edge.users, edge.sessions, args.json);
    Ok(if verifier.report.total() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Compares what there is of one user. A claim that the user has beside that on the address is not looked for.
pub async fn of_user(
    settings: &Settings,
    user: UserId,
    wait: Duration,
    max: usize,
) -> anyhow::Result<Report> {
    let scope = Scope::One(user);
    let mut verifier = Verifier::new(settings, scope, None, wait, Report::new(max)).await?;
    verifier.all().await?;
    Ok(verifier.report)
}

/// Compares generations of the views with the log, and nothing else: of every `sample`-th user.
pub async fn of_generations(
    settings: &Settings,
    of: &[(ViewSet, u32)],
    sample: u64,
    wait: Duration,
    max: usize,
) -> anyhow::Result<Report> {
    let (scope, compared) = (Scope::Sample(sample), Compared::views(of));
    let report = Report::of_views(max);
    let mut verifier = Verifier::new(settings, scope, Some(compared), wait, report).await?;
    verifier.with_a_bar().await?;
    Ok(verifier.report)
}

impl Verifier {
    async fn new(
        settings: &Settings,
        scope: Scope,
        compared: Option<Compared>,
        wait: Duration,
        mut report: Report,
    ) -> anyhow::Result<Self> {
        let claim_key = LookupKeys::read(&settings.secrets.dir)?.claims;
        let client = nats::connect(&settings.nats, "operator").await?;
        let log = |stream| EventLog::new(client.clone(), stream, Limits::of(settings));
        let streams = Streams {
            users: log(subjects::USERS_STREAM),
            sessions: log(subjects::SESSIONS_STREAM),
            feed: log(FEED_STREAM),
        };
        let views = Views::open(&settings.mongodb.url, &settings.mongodb.database).await?;
        views.ping().await.context("the database of the views does not answer")?;
        let compared = match compared {
            Some(compared) => compared,
            None => Compared::everything(&views.generations().await?),
        };
        let edge = edge::reached(&streams, &views, compared, wait, &mut report).await?;
        let now = ambient::now();
        let kept_s = settings.feed.sessions_kept_s;
        Ok(Self {
            streams,
            views,
            compared,
            claim_key,
            edge,
            scope,
            told_since: now.plus_seconds(EXPIRY_MARGIN_S).minus_seconds(kept_s),
            logged_since: now.minus_seconds(settings.sessions.absolute_s),
            report,
            bar: ProgressBar::hidden(),
            known: HashMap::new(),
            sessions: HashMap::new(),
            claims: HashMap::new(),
            admins: BTreeSet::new(),
        })
    }

    /// All of it, with a bar that shows how far it is.
    async fn with_a_bar(&mut self) -> anyhow::Result<()> {
        let (users, sessions) = (self.compared.users, self.compared.sessions);
        let documents = self.views.users(users).estimated_document_count().await?
            + self.views.sessions(sessions).estimated_document_count().await?;
        let length = self.edge.users.0 + self.edge.sessions.0 + documents;
        self.bar = ProgressBar::new(length).with_style(ProgressStyle::with_template(
            "{wide_bar} {percent}%  {per_sec}  {eta} left  {msg}",
        )?);
        self.all().await?;
        self.bar.finish_and_clear();
        Ok(())
    }

    async fn all(&mut self) -> anyhow::Result<()> {
        self.bar.set_message("users");
        self.log_of_users().await?;
        self.bar.set_message("sessions");
        self.log_of_sessions().await?;
        if !self.compared.is_views_alone() {
            self.bar.set_message("claims");
            if let Scope::One(user) = self.scope {
                self.claims_of(user).await?;
            }
            self.compare_claims().await?;
        }
        self.bar.set_message("documents");
        if self.edge.user_views {
            self.user_documents().await?;
        }
        if self.edge.session_views {
            self.session_documents().await?;
        }
        self.settle_doubts().await
    }

    /// Subjects that end with a user's id, for those who are checked.
    fn subjects(&self, of_all: &[&str]) -> Vec<String> {
        let narrowed = |subject: &&str| match self.scope {
            Scope::Sample(_) => (*subject).to_owned(),
            Scope::One(user) => {
                format!("{}{user}", subject.strip_suffix('*').unwrap_or(subject))
            }
        };
        of_all.iter().map(narrowed).collect()
    }

    /// What documents are asked for, by the member with the user's id.
    fn documents_of(&self, member: &str) -> Document {
        match self.scope {
            Scope::Sample(_) => doc! {},
            Scope::One(user) => doc! { member: user_key(user) },
        }
    }

    /// Whether a user is checked. The end of an id is random.
    fn is_checked(&self, user: UserId) -> bool {
        let (_, random) = user.as_uuid().as_u64_pair();
        match self.scope {
            Scope::Sample(every) => random % every == 0,
            Scope::One(one) => user == one,
        }
    }

    /// What was in doubt is a difference, unless the user was deleted since.
    async fn settle_doubts(&mut self) -> anyhow::Result<()> {
        for (user, known) in std::mem::take(&mut self.known) {
            let mut known_gone = None;
            for (doubt, counted) in known.doubts() {
                // Of a user who was deleted before, only the deletion itself is in doubt.
                if !known.is_deleted() && !self.report.is_full() {
                    let gone = match known_gone {
                        Some(gone) => gone,
                        None => is_gone(&self.streams.users, user).await?,
                    };
                    known_gone = Some(gone);
                    if gone {
                        self.report.changed_meanwhile += 1;
                        continue;
                    }
                }
                let (place, what) = doubt.told();
                let what = match counted.count {
                    1 => what.to_owned(),
                    count => format!("{what}, {count} times from here on"),
                };
                self.report.add(Difference::new(place, what).of(user).at(counted.first));
            }
        }
        Ok(())
    }

    /// Takes in a difference about a user, unless the user has changed since.
    async fn differs(&mut self, user: UserId, difference: Difference) -> anyhow::Result<()> {
        if !self.report.is_full() && self.has_changed(user).await? {
            self.report.changed_meanwhile += 1;
        } else {
            self.report.add(difference);
        }
        Ok(())
    }

    /// Whether anything happened to a user behind the position as of which everything is compared.
    async fn has_changed(&self, user: UserId) -> anyhow::Result<bool> {
        let Streams { users, sessions, .. } = &self.streams;
        let (event, revocation) = (subjects::user_events(user), subjects::user_revocation(user));
        let of_sessions = subjects::session_events_of(user);
        Ok(users.next(&event, self.edge.users).await?.is_some()
            || users.next(&revocation, self.edge.users).await?.is_some()
            || sessions.next(&of_sessions, self.edge.sessions).await?.is_some())
    }
}
