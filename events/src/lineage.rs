//! The history of the log that a position belongs to.
//!
//! Sessions and access tokens name the last revocation that they know of by its position in the log of users. When the
//! log goes back, because its files were restored or its last messages were lost, positions are assigned a second time,
//! and comparing two of them is meaningless. So sessions and tokens also name the history, and a new history begins
//! when the log is known to have gone back (ADR 34).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Position, Timestamp};

/// The id of one history of the log: eight random bytes, drawn when the history begins. On the wire 16 hexadecimal
/// digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Lineage(u64);

/// The text is not a [`Lineage`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not 16 hexadecimal digits in lower case")]
pub struct InvalidLineage;

impl Lineage {
    /// Wraps bytes that were drawn elsewhere.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(u64::from_be_bytes(bytes))
    }
}

impl fmt::Display for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for Lineage {
    type Err = InvalidLineage;

    fn from_str(text: &str) -> Result<Self, InvalidLineage> {
        let lineage = u64::from_str_radix(text, 16).map(Self).map_err(|_| InvalidLineage)?;
        if lineage.to_string() == text { Ok(lineage) } else { Err(InvalidLineage) }
    }
}

impl TryFrom<String> for Lineage {
    type Error = InvalidLineage;

    fn try_from(text: String) -> Result<Self, InvalidLineage> {
        text.parse()
    }
}

impl From<Lineage> for String {
    fn from(lineage: Lineage) -> Self {
        lineage.to_string()
    }
}

/// A message of the log of users. A history with a different message at the position, or with none, is another history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Milestone {
    /// Its position.
    pub position: Position,
    /// When it was stored.
    pub stored_at: Timestamp,
}

/// The history that the log of users is in. It is kept in the stream of sessions, so that it does not go back with the
/// log of users alone, and written again at least every half hour: whoever checks access tokens, and hears what ended
/// within the last hour, hears it too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineageRecord {
    /// Its name.
    pub lineage: Lineage,
    /// The name of the stream that it is a history of, which a restored stream does not have any more.
    #[serde(default)]
    pub log: Option<String>,
    /// How far the log was when this was written.
    #[serde(default)]
    pub milestone: Option<Milestone>,
    /// The history that this one was begun after.
    #[serde(default)]
    pub follows: Option<Lineage>,
    /// Earlier histories whose sessions live on.
    #[serde(default)]
    pub keeps: Vec<Lineage>,
}

impl LineageRecord {
    /// Most earlier histories that are kept: each costs a restore.
    const KEEPS_MAX: usize = 16;

    /// A history that nothing of before lives on in.
    #[must_use]
    pub const fn new(lineage: Lineage, log: Option<String>) -> Self {
        Self { lineage, log, milestone: None, follows: None, keeps: Vec::new() }
    }

    /// The same, in which the sessions of an earlier one live on.
    #[must_use]
    pub fn keeping(mut self, earlier: &Self) -> Self {
        self.keeps =
            std::iter::once(earlier.lineage).chain(earlier.keeps.iter().copied()).collect();
        self.keeps.truncate(Self::KEEPS_MAX);
        self
    }

    /// Whether a session lives on in this history. One of before sessions named their history does.
    #[must_use]
    pub fn admits(&self, session: Option<Lineage>) -> bool {
        session.is_none_or(|lineage| lineage == self.lineage || self.keeps.contains(&lineage))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lineage(n: u8) -> Lineage {
        Lineage::from_bytes([n; 8])
    }

    #[test]
    fn a_lineage_has_one_spelling() {
        let text = lineage(10).to_string();
        assert_eq!(text, "0a0a0a0a0a0a0a0a");
        assert_eq!(text.parse(), Ok(lineage(10)));
        for wrong in ["", "0A0A0A0A0A0A0A0A", "a0a0a0a0a0a0a0a", "+a0a0a0a0a0a0a0a", "lineage"] {
            assert_eq!(wrong.parse::<Lineage>(), Err(InvalidLineage), "{wrong}");
        }
    }

    #[test]
    fn sessions_of_another_history_live_on_only_where_they_are_kept() {
        let first = LineageRecord::new(lineage(1), None);
        let second = LineageRecord::new(lineage(2), None).keeping(&first);
        let third = LineageRecord::new(lineage(3), None).keeping(&second);
        let fourth = LineageRecord::new(lineage(4), None);
        let admitted =
            |record: &LineageRecord| [1, 2, 3, 4].map(|n| record.admits(Some(lineage(n))));
        assert_eq!(admitted(&second), [true, true, false, false]);
        assert_eq!(admitted(&third), [true, true, true, false]);
        assert_eq!(admitted(&fourth), [false, false, false, true]);
        assert!(fourth.admits(None), "sessions of before they named one live on");
    }

    #[test]
    fn a_record_is_read_without_what_was_added_later() {
        let read: LineageRecord =
            serde_json::from_str(r#"{"lineage":"0101010101010101"}"#).unwrap();
        assert_eq!(read, LineageRecord::new(lineage(1), None));
    }
}
