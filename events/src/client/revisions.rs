//! Which events were handled already: the last revision of each user and each session.
//!
//! The feed gives every event at least once. It comes again when an acknowledgement was lost, when a process
//! died between its work and the acknowledgement, or when a server died that had not written down yet what
//! it had confirmed. Revisions of one aggregate only go up, so one number tells the new from the old.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::files;
use crate::feed::{Aggregate, FeedEvent};
use crate::{Revision, UserId};

/// Sessions whose last revision is kept, the latest ones: there is no end of sessions, and what comes again
/// comes soon. Users are all kept.
pub const SESSION_MARKS_MAX: usize = 100_000;
/// How many lines a file may have beyond twice what is needed.
const SPARE_LINES_MAX: usize = 1_000;
const USER_PREFIX: &str = "user.";
const FORGET: &str = "forget";

/// How far an event brings its aggregate: what to keep **in your own database, in the transaction of the
/// effect**.
///
/// That is the only way to an effect that happens exactly once. Effect and mark become true together or not
/// at all, so whatever comes again is seen to be old. A mark that is kept elsewhere is written before or
/// after the effect, and a crash in between loses the effect or repeats it.
///
/// ```
/// # use events::client::Mark;
/// # use events::feed::FeedEvent;
/// # fn example(event: &FeedEvent) {
/// // Within the transaction; no row changed means that the event was handled already:
/// // INSERT INTO handled (aggregate, revision) VALUES ($1, $2)
/// // ON CONFLICT (aggregate) DO UPDATE SET revision = excluded.revision
/// // WHERE handled.revision < excluded.revision
/// let mark = Mark::of(event);
/// let (_one, _two) = (&mark.aggregate.0, mark.revision.0);
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// The user or the session.
    pub aggregate: Aggregate,
    /// The event's revision.
    pub revision: Revision,
}

impl Mark {
    /// The mark that an event leaves.
    #[must_use]
    pub fn of(event: &FeedEvent) -> Self {
        Self { aggregate: event.aggregate(), revision: event.revision }
    }

    /// Whether the event was not handled yet, when `last` is what is kept for [`Mark::aggregate`].
    #[must_use]
    pub fn is_news(&self, last: Option<Revision>) -> bool {
        last.is_none_or(|last| self.revision > last)
    }
}

/// Marks in a file: what [`Subscriber`](super::Subscriber) uses on its own.
///
/// What it promises: an event whose mark was written is not handled again, whatever is killed or cut off
/// afterwards. What it cannot: the mark is written after the handler succeeded, so an event whose handler
/// succeeded right before a crash is handled a second time. For that gap keep a [`Mark`] in a transaction,
/// or let the handler do things that may be done twice.
///
/// The file has a line per event that was handled. It is rewritten when it is opened and when it has grown
/// to more than twice what is needed. A last line that was cut off by a crash is dropped.
#[derive(Debug)]
pub struct Revisions {
    path: PathBuf,
    file: File,
    marks: HashMap<Aggregate, Kept>,
    /// Lines in the file.
    lines: usize,
    /// Counts up, to tell older marks from newer ones.
    clock: u64,
}

#[derive(Debug, Clone, Copy)]
struct Kept {
    revision: Revision,
    user: Option<UserId>,
    age: u64,
}

impl Revisions {
    /// Opens the file, or makes it.
    ///
    /// # Errors
    /// The file cannot be read or written, or holds what this never wrote: then it is damaged, and it is
    /// for its owner to decide whether events may be handled again.
    pub fn open(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        let content = match fs::read(&path) {
            Ok(content) => content,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let mut marks = HashMap::new();
        let mut clock = 0;
        // What comes behind the last line end was cut off.
        let whole = content.iter().rposition(|byte| *byte == b'\n').unwrap_or(0);
        for line in content.get(..whole).unwrap_or_default().split(|byte| *byte == b'\n') {
            clock += 1;
            if !line.is_empty() {
                read(line, clock, &mut marks).ok_or_else(|| {
                    io::Error::new(io::ErrorKind::InvalidData, format!("line {clock} is damaged"))
                })?;
            }
        }
        let file = rewrite(&path, &mut marks)?;
        Ok(Self { path, file, lines: marks.len(), marks, clock })
    }

    /// The last revision that was handled.
    #[must_use]
    pub fn last(&self, aggregate: &Aggregate) -> Option<Revision> {
        self.marks.get(aggregate).map(|kept| kept.revision)
    }

    /// Whether an event was not handled yet.
    #[must_use]
    pub fn is_news(&self, event: &FeedEvent) -> bool {
        let mark = Mark::of(event);
        mark.is_news(self.last(&mark.aggregate))
    }

    /// Writes down that an event was handled; it is on disk when this returns.
    ///
    /// # Errors
    /// It may be written or not: treat the event as not handled.
    pub fn record(&mut self, event: &FeedEvent) -> io::Result<()> {
        self.put(Mark::of(event), event.happened.user_id())
    }

    pub(super) fn put(&mut self, mark: Mark, user: Option<UserId>) -> io::Result<()> {
        // A type that is not known yet may name its aggregate as it likes, and a line has three words.
        let fits = !mark.aggregate.0.contains(char::is_whitespace);
        if !fits || !mark.is_news(self.last(&mark.aggregate)) {
            return Ok(());
        }
        self.clock += 1;
        let kept = Kept { revision: mark.revision, user, age: self.clock };
        self.append(&line(&mark.aggregate, &kept))?;
        self.marks.insert(mark.aggregate, kept);
        self.tidy()
    }

    /// Forgets the sessions of a user who is gone. The user's own revision stays, without which an event
    /// that comes late could bring them back; it is an id and a number.
    ///
    /// # Errors
    /// They may be forgotten or not: do it again.
    pub fn forget_sessions(&mut self, user: UserId) -> io::Result<()> {
        if !self.marks.iter().any(|(aggregate, kept)| is_session_of(user, aggregate, kept)) {
            return Ok(());
        }
        self.append(&format!("{FORGET} {user}\n"))?;
        self.marks.retain(|aggregate, kept| !is_session_of(user, aggregate, kept));
        self.tidy()
    }

    fn append(&mut self, line: &str) -> io::Result<()> {
        self.file.write_all(line.as_bytes())?;
        self.file.sync_data()?;
        self.lines += 1;
        Ok(())
    }

    fn tidy(&mut self) -> io::Result<()> {
        let needed = self.marks.len();
        if self.lines > needed.saturating_mul(2).saturating_add(SPARE_LINES_MAX) {
            self.file = rewrite(&self.path, &mut self.marks)?;
            self.lines = self.marks.len();
        }
        Ok(())
    }
}

fn is_session_of(user: UserId, aggregate: &Aggregate, kept: &Kept) -> bool {
    kept.user == Some(user) && !aggregate.0.starts_with(USER_PREFIX)
}

fn line(aggregate: &Aggregate, kept: &Kept) -> String {
    let user = kept.user.map_or_else(|| "-".to_owned(), |user| user.to_string());
    format!("{} {} {user}\n", aggregate.0, kept.revision)
}

/// Takes one line in; `None` when it is none.
fn read(line: &[u8], age: u64, marks: &mut HashMap<Aggregate, Kept>) -> Option<()> {
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    let (first, second, third) = (words.next()?, words.next()?, words.next());
    if words.next().is_some() {
        return None;
    }
    let Some(user) = third else {
        let user: UserId = (first == FORGET).then(|| second.parse().ok())??;
        marks.retain(|aggregate, kept| !is_session_of(user, aggregate, kept));
        return Some(());
    };
    let revision = Revision(second.parse().ok()?);
    let user = if user == "-" { None } else { Some(user.parse().ok()?) };
    marks.insert(Aggregate(first.to_owned()), Kept { revision, user, age });
    Some(())
}

/// Writes what is needed and nothing else, and opens it for more.
fn rewrite(path: &Path, marks: &mut HashMap<Aggregate, Kept>) -> io::Result<File> {
    let mut ages: Vec<u64> = marks
        .iter()
        .filter(|(aggregate, _)| !aggregate.0.starts_with(USER_PREFIX))
        .map(|(_, kept)| kept.age)
        .collect();
    ages.sort_unstable_by(|a, b| b.cmp(a));
    if let Some(too_old) = ages.get(SESSION_MARKS_MAX) {
        marks.retain(|aggregate, kept| aggregate.0.starts_with(USER_PREFIX) || kept.age > *too_old);
    }
    let mut kept: Vec<_> = marks.iter().collect();
    // The order of the lines is what tells their age when they are read again.
    kept.sort_unstable_by_key(|(_, kept)| kept.age);
    let content: String = kept.into_iter().map(|(aggregate, kept)| line(aggregate, kept)).collect();
    files::replace(path, content.as_bytes())?;
    files::private().append(true).open(path)
}
