//! What was found, in words without personal data: ids, positions and names of members.

use std::collections::BTreeMap;

use events::{Position, SessionId, UserId};
use serde::Serialize;
use serde_json::{Value, json};

use crate::cli::say;

/// What is wrong with a message that everybody passes over.
pub const FOREIGN: &str = "no service wrote this message";

/// Where a difference is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// The stream `USERS`.
    Log,
    /// The stream `SESSIONS`.
    SessionsLog,
    /// The documents of users.
    UserView,
    /// The documents of sessions.
    SessionView,
    /// The documents of what happened to users.
    History,
    /// The stream `USER_EVENTS`.
    Feed,
    /// The claims on addresses.
    Claim,
    /// The record of the administrators.
    Admins,
}

impl Place {
    const fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::SessionsLog => "sessions-log",
            Self::UserView => "user-view",
            Self::SessionView => "session-view",
            Self::History => "history",
            Self::Feed => "feed",
            Self::Claim => "claim",
            Self::Admins => "admins",
        }
    }
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Where.
    #[serde(rename = "where")]
    pub place: Place,
    /// What.
    pub what: String,
    /// Whom it is about.
    pub user_id: Option<UserId>,
    /// Which session it is about.
    pub session_id: Option<SessionId>,
    /// The place in the stream that it shows at.
    pub position: Option<Position>,
    /// Members that differ.
    pub members: Vec<String>,
}

impl Difference {
    /// A difference about nobody yet.
    pub fn new(place: Place, what: impl Into<String>) -> Self {
        let what = what.into();
        Self { place, what, user_id: None, session_id: None, position: None, members: Vec::new() }
    }

    /// About a user.
    pub const fn of(mut self, user: UserId) -> Self {
        self.user_id = Some(user);
        self
    }

    /// About a session.
    pub const fn of_session(mut self, session: SessionId) -> Self {
        self.session_id = Some(session);
        self
    }

    /// At a position.
    pub const fn at(mut self, position: Position) -> Self {
        self.position = Some(position);
        self
    }

    /// In some members.
    pub fn in_members(mut self, members: Vec<String>) -> Self {
        self.members = members;
        self
    }

    /// In words.
    pub fn line(&self) -> String {
        let mut line = format!("{}: {}", self.place.name(), self.what);
        if !self.members.is_empty() {
            line.push_str(&format!(" in {}", self.members.join(", ")));
        }
        for (name, value) in [
            ("user", self.user_id.map(|user| user.to_string())),
            ("session", self.session_id.map(|session| session.to_string())),
            ("position", self.position.map(|position| position.to_string())),
        ] {
            if let Some(value) = value {
                line.push_str(&format!("  {name}={value}"));
            }
        }
        line
    }
}

/// How many of each were looked at.
#[derive(Debug, Default, Serialize)]
pub struct Looked {
    /// Users of the log.
    pub users: u64,
    /// Sessions of the log.
    pub sessions: u64,
    /// Events of both.
    pub events: u64,
    /// Documents.
    pub documents: u64,
    /// Messages of the feed.
    pub feed: u64,
    /// Claims that are held.
    pub claims: u64,
}

/// Everything that was found.
#[derive(Debug)]
pub struct Report {
    shown: Vec<Difference>,
    max: usize,
    counts: BTreeMap<Place, u64>,
    /// The only places that matter; empty when all do.
    places: &'static [Place],
    /// Differences in places that do not matter.
    pub elsewhere: u64,
    /// What changed while it was looked at, and was not compared.
    pub changed_meanwhile: u64,
    /// What was looked at.
    pub looked: Looked,
}

impl Report {
    /// Shows up to so many differences and counts the rest.
    pub fn new(max: usize) -> Self {
        Self {
            shown: Vec::new(),
            max,
            counts: BTreeMap::new(),
            places: &[],
            elsewhere: 0,
            changed_meanwhile: 0,
            looked: Looked::default(),
        }
    }

    /// Shows what is wrong with documents, and counts what is wrong elsewhere.
    pub fn of_views(max: usize) -> Self {
        Self { places: &[Place::UserView, Place::SessionView, Place::History], ..Self::new(max) }
    }

    /// Takes in a difference.
    pub fn add(&mut self, difference: Difference) {
        if !self.places.is_empty() && !self.places.contains(&difference.place) {
            self.elsewhere += 1;
            return;
        }
        *self.counts.entry(difference.place).or_default() += 1;
        if self.shown.len() < self.max {
            self.shown.push(difference);
        }
    }

    /// Whether further differences are only counted.
    pub const fn is_full(&self) -> bool {
        self.shown.len() >= self.max
    }

    /// The differences that are shown.
    pub fn shown(&self) -> &[Difference] {
        &self.shown
    }

    /// How many differences there are.
    pub fn total(&self) -> u64 {
        self.counts.values().sum()
    }

    /// Says all of it.
    pub fn show(&self, users: Position, sessions: Position, as_json: bool) {
        let total = self.total();
        if as_json {
            let counts: serde_json::Map<String, Value> = self
                .counts
                .iter()
                .map(|(place, count)| (place.name().to_owned(), json!(count)))
                .collect();
            let answer = json!({
                "positions": {"users": users, "sessions": sessions},
                "looked_at": self.looked,
                "changed_meanwhile": self.changed_meanwhile,
                "differences_total": total,
                "differences_by_place": counts,
                "differences": self.shown,
            });
            say(&answer.to_string());
            return;
        }
        for difference in &self.shown {
            say(&difference.line());
        }
        let left = total - self.shown.len() as u64;
        if left > 0 {
            say(&format!("and {left} more: see --max"));
        }
        for (place, count) in &self.counts {
            say(&format!("{}: {count} differences", place.name()));
        }
        let Looked { users: of_users, sessions: of_sessions, events, documents, feed, claims } =
            &self.looked;
        say(&format!(
            "looked at {of_users} users and {of_sessions} sessions: {events} events, {documents} documents, \
             {feed} messages of the feed, {claims} claims, as of {users} of USERS and {sessions} of SESSIONS; \
             {} changed meanwhile and were not compared",
            self.changed_meanwhile
        ));
        say(if total == 0 { "no difference" } else { "there are differences" });
    }
}
