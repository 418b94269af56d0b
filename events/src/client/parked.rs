//! Events that could not be handled, user by user and in their order, in files.
//!
//! `parked/<user>/<number>` holds a line of JSON that says what and why, and the message as it came behind
//! it. `requests/<user>` holds a wish of whoever looks after the subscriber; the process that runs the
//! handler fulfils it. So there is one process that changes what is parked, and any may ask it to.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::files;
use crate::UserId;

const PARKED: &str = "parked";
const REQUESTS: &str = "requests";

/// What is parked in a state folder, and what shall become of it. Usable from any process, also while the
/// subscriber runs; the subscriber sees to a request within a second, or when it is started next.
#[derive(Debug, Clone)]
pub struct Parked {
    state: PathBuf,
}

/// One event that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkedEvent {
    /// Whose it is, by its subject. The nil UUID where the subject names no user.
    pub user: UserId,
    /// Its place among the parked events of the user.
    pub number: u64,
    /// The subject it was published on.
    pub subject: String,
    /// Its stream.
    pub stream: String,
    /// Its place in its stream.
    pub sequence: u64,
    /// Why it waits: what the handler said at the last attempt, or that it waits behind another.
    pub reason: String,
    /// When it was parked, or last tried.
    pub since: SystemTime,
    /// The message as it came; [`FeedEvent::from_json`](crate::feed::FeedEvent::from_json) reads it if
    /// anything can.
    pub payload: Vec<u8>,
}

/// What shall become of the parked events of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Request {
    Retry,
    Skip,
    Drop,
}

impl Parked {
    /// What is parked by the subscriber with this state folder.
    #[must_use]
    pub fn at(state: impl Into<PathBuf>) -> Self {
        Self { state: state.into() }
    }

    /// Every parked event, by user and in the order of each. Personal data: show it to those who may see it.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn list(&self) -> io::Result<Vec<ParkedEvent>> {
        let mut found = Vec::new();
        for user in users_in(&self.state.join(PARKED))? {
            for number in numbers_in(&self.lane(user))? {
                match read(&self.lane(user), user, number) {
                    // Handled or dropped between two looks.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    event => found.push(event?),
                }
            }
        }
        Ok(found)
    }

    /// Asks for the events of a user to be tried again, in their order, up to the first that fails.
    ///
    /// # Errors
    /// The request cannot be written.
    pub fn retry(&self, user: UserId) -> io::Result<()> {
        self.ask(user, Request::Retry)
    }

    /// Asks for the first event of a user to be dropped, and the others to be tried.
    ///
    /// # Errors
    /// The request cannot be written.
    pub fn skip(&self, user: UserId) -> io::Result<()> {
        self.ask(user, Request::Skip)
    }

    /// Asks for all parked events of a user to be dropped.
    ///
    /// # Errors
    /// The request cannot be written.
    pub fn drop(&self, user: UserId) -> io::Result<()> {
        self.ask(user, Request::Drop)
    }

    fn ask(&self, user: UserId, request: Request) -> io::Result<()> {
        let folder = self.state.join(REQUESTS);
        files::make_folder(&folder)?;
        let wish = serde_json::to_vec(&request)?;
        files::replace(&folder.join(user.to_string()), &wish)
    }

    fn lane(&self, user: UserId) -> PathBuf {
        self.state.join(PARKED).join(user.to_string())
    }
}

/// The first line of a file.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    subject: String,
    stream: String,
    sequence: u64,
    reason: String,
}

/// A message to be parked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Message<'a> {
    pub(super) user: UserId,
    pub(super) subject: &'a str,
    pub(super) stream: &'a str,
    pub(super) sequence: u64,
    pub(super) payload: &'a [u8],
}

/// The parked events as the one process sees them that changes them.
#[derive(Debug)]
pub(super) struct Store {
    parked: Parked,
    /// Of each user, by number: stream and sequence, which tell a message that came again.
    lanes: HashMap<UserId, BTreeMap<u64, (String, u64)>>,
    events: usize,
    events_max: usize,
}

impl Store {
    pub(super) fn open(state: &Path, events_max: usize) -> io::Result<Self> {
        let parked = Parked::at(state);
        files::make_folder(&state.join(PARKED))?;
        let mut store = Self { parked, lanes: HashMap::new(), events: 0, events_max };
        for event in store.parked.list()? {
            store.note(event.user, event.number, event.stream, event.sequence);
        }
        Ok(store)
    }

    fn note(&mut self, user: UserId, number: u64, stream: String, sequence: u64) {
        let lane = self.lanes.entry(user).or_default();
        if lane.insert(number, (stream, sequence)).is_none() {
            self.events += 1;
        }
    }

    pub(super) fn holds(&self, user: UserId) -> bool {
        self.lanes.contains_key(&user)
    }

    pub(super) const fn events(&self) -> usize {
        self.events
    }

    /// The number of the first event of a user that comes behind `after`.
    pub(super) fn next(&self, user: UserId, after: u64) -> Option<u64> {
        let lane = self.lanes.get(&user)?;
        lane.range(after.saturating_add(1)..).next().map(|(number, _)| *number)
    }

    pub(super) fn read(&self, user: UserId, number: u64) -> io::Result<ParkedEvent> {
        read(&self.parked.lane(user), user, number)
    }

    /// Puts a message behind those of the same user; it is on disk when this returns. One that is there
    /// already came again. `false`: there is no room.
    pub(super) fn park(&mut self, message: Message<'_>, reason: &str) -> io::Result<bool> {
        let user = message.user;
        let lane = self.lanes.get(&user);
        let there = lane.is_some_and(|lane| {
            lane.values()
                .any(|(stream, sequence)| stream == message.stream && *sequence == message.sequence)
        });
        if there {
            return Ok(true);
        }
        if self.events >= self.events_max {
            return Ok(false);
        }
        let number = lane.and_then(|lane| lane.keys().next_back()).map_or(1, |last| last + 1);
        files::make_folder(&self.parked.lane(user))?;
        write(&self.parked.lane(user), number, message, reason)?;
        self.note(user, number, message.stream.to_owned(), message.sequence);
        Ok(true)
    }

    /// Says why an event is parked still.
    pub(super) fn blame(&self, event: &ParkedEvent, reason: &str) -> io::Result<()> {
        let message = Message {
            user: event.user,
            subject: &event.subject,
            stream: &event.stream,
            sequence: event.sequence,
            payload: &event.payload,
        };
        write(&self.parked.lane(event.user), event.number, message, reason)
    }

    /// Takes one event out.
    pub(super) fn remove(&mut self, user: UserId, number: u64) -> io::Result<()> {
        let folder = self.parked.lane(user);
        files::remove(&folder.join(file_name(number)))?;
        if let Some(lane) = self.lanes.get_mut(&user) {
            if lane.remove(&number).is_some() {
                self.events = self.events.saturating_sub(1);
            }
            if lane.is_empty() {
                self.lanes.remove(&user);
                remove_folder(&folder)?;
            }
        }
        Ok(())
    }

    /// Takes all events of a user out, last ones first: after a crash in between what is left is in order.
    pub(super) fn clear(&mut self, user: UserId) -> io::Result<()> {
        let numbers: Vec<u64> = self
            .lanes
            .get(&user)
            .map(|lane| lane.keys().rev().copied().collect())
            .unwrap_or_default();
        numbers.into_iter().try_for_each(|number| self.remove(user, number))?;
        // What a crash left half written of somebody who is gone.
        remove_folder(&self.parked.lane(user))
    }

    /// The requests that are there.
    pub(super) fn requests(&self) -> io::Result<Vec<(UserId, Request)>> {
        let folder = self.parked.state.join(REQUESTS);
        let mut found = Vec::new();
        for user in users_in(&folder)? {
            // Rewritten this moment, or none of ours: looked at again in a second.
            if let Ok(text) = fs::read(folder.join(user.to_string()))
                && let Ok(request) = serde_json::from_slice(&text)
            {
                found.push((user, request));
            }
        }
        Ok(found)
    }

    /// A request was taken up.
    pub(super) fn answered(&self, user: UserId) -> io::Result<()> {
        files::remove(&self.parked.state.join(REQUESTS).join(user.to_string()))
    }
}

fn file_name(number: u64) -> String {
    format!("{number:010}")
}

fn write(folder: &Path, number: u64, message: Message<'_>, reason: &str) -> io::Result<()> {
    let head = Head {
        subject: message.subject.to_owned(),
        stream: message.stream.to_owned(),
        sequence: message.sequence,
        reason: reason.to_owned(),
    };
    let mut content = serde_json::to_vec(&head)?;
    content.push(b'\n');
    content.extend_from_slice(message.payload);
    files::replace(&folder.join(file_name(number)), &content)
}

fn read(folder: &Path, user: UserId, number: u64) -> io::Result<ParkedEvent> {
    let path = folder.join(file_name(number));
    let content = fs::read(&path)?;
    let since = fs::metadata(&path)?.modified()?;
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, "a parked event is damaged");
    let end = content.iter().position(|byte| *byte == b'\n').ok_or_else(damaged)?;
    let (head, payload) = content.split_at_checked(end).ok_or_else(damaged)?;
    let head: Head = serde_json::from_slice(head)?;
    Ok(ParkedEvent {
        user,
        number,
        subject: head.subject,
        stream: head.stream,
        sequence: head.sequence,
        reason: head.reason,
        since,
        payload: payload.get(1..).unwrap_or_default().to_vec(),
    })
}

/// The names in a folder; none when it is not there.
fn names_in(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        // A name that is no text is none of ours.
        names.extend(entry?.file_name().into_string());
    }
    names.sort_unstable();
    Ok(names)
}

fn users_in(folder: &Path) -> io::Result<Vec<UserId>> {
    Ok(names_in(folder)?.iter().filter_map(|name| name.parse().ok()).collect())
}

/// Drafts that a crash left behind are passed over.
fn numbers_in(folder: &Path) -> io::Result<Vec<u64>> {
    Ok(names_in(folder)?.iter().filter_map(|name| name.parse().ok()).collect())
}

fn remove_folder(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
