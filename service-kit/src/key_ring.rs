//! A key through its rotations (ADR 30): the keys of one file, of which one seals and all open.
//!
//! A ring has one line per key, the oldest first; every later key states from when on it seals. So all processes with
//! the same file and a clock change keys at the same moment, and open what either key sealed as long as both are in the
//! file. Stored data has no key id: there are at most two keys, and both are tried. A partially copied file is the old
//! key alone, or unreadable, and never the new key alone.
//!
//! Not for keys that name records ([`crate::lookup_keys`]): with two of them at once, one record could exist twice.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use events::Timestamp;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::ambient;
use crate::keys::{KeyError, SecretKey, read_text, replace_private};

/// Keys of a ring during a rotation; at any other time there is one.
const KEYS_MAX: usize = 2;
/// Pause between two reads of the file.
pub const RELOAD_EVERY: Duration = Duration::from_secs(2);

/// The keys of a file.
#[derive(Debug, Clone)]
pub struct Ring {
    oldest: RingKey,
    /// The later keys, in order.
    later: Vec<RingKey>,
}

#[derive(Debug, Clone)]
struct RingKey {
    key: SecretKey,
    /// When it begins to seal; `None` for the first key of a system.
    seals_from: Option<Timestamp>,
}

impl RingKey {
    fn parse(line: &str, path: &Path) -> Result<Self, KeyError> {
        let (key, seals_from) = match line.split_once(" from ") {
            None => (line, None),
            Some((key, from)) => {
                let from = Timestamp::parse(from.trim());
                (key, Some(from.map_err(|_| content(path, "the time from which a key seals"))?))
            }
        };
        Ok(Self { key: SecretKey::parse(key, path)?, seals_from })
    }

    fn is_due(&self, now: Timestamp) -> bool {
        self.seals_from.is_none_or(|from| from <= now)
    }
}

impl Ring {
    /// Reads a file.
    ///
    /// # Errors
    /// [`KeyError`]
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        Self::parse(&read_text(path)?, path)
    }

    /// Parses the text of a file.
    ///
    /// # Errors
    /// [`KeyError::Content`] names `path`.
    pub fn parse(text: &str, path: &Path) -> Result<Self, KeyError> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let mut keys = lines.map(|line| RingKey::parse(line, path));
        let number = || content(path, "one key, or two during a rotation");
        let oldest = keys.next().ok_or_else(number)??;
        let later = keys.collect::<Result<Vec<_>, _>>()?;
        if later.len() >= KEYS_MAX {
            return Err(number());
        }
        if later.iter().any(|key| key.seals_from.is_none()) {
            return Err(content(path, "the time from which the second key seals"));
        }
        Ok(Self { oldest, later })
    }

    /// The text of the file.
    #[must_use]
    pub fn text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::new());
        for RingKey { key, seals_from } in self.keys() {
            text.push_str(&key.to_base64());
            if let Some(from) = seals_from {
                text.push_str(" from ");
                text.push_str(&from.to_string());
            }
            text.push('\n');
        }
        text
    }

    /// Replaces the file atomically; an equal file stays.
    ///
    /// # Errors
    /// [`KeyError::Write`]
    pub fn write(&self, path: &Path) -> Result<(), KeyError> {
        let text = self.text();
        match Self::read(path) {
            Ok(read) if *read.text() == *text => Ok(()),
            Ok(_) | Err(_) => replace_private(path, text.as_bytes()),
        }
    }

    /// The ring with another key, which opens at once and seals from a time on.
    #[must_use]
    pub fn with(mut self, key: SecretKey, seals_from: Timestamp) -> Self {
        self.later.push(RingKey { key, seals_from: Some(seals_from) });
        self
    }

    /// The ring with another time from which the newest key seals.
    #[must_use]
    pub fn sealing_from(mut self, seals_from: Timestamp) -> Self {
        if let Some(newest) = self.later.last_mut() {
            newest.seals_from = Some(seals_from);
        }
        self
    }

    /// The ring with the newest key only.
    #[must_use]
    pub fn finished(mut self) -> Self {
        let newest = self.later.pop().unwrap_or(self.oldest);
        Self { oldest: newest, later: Vec::new() }
    }

    /// The keys that this ring derives for a purpose, with the same times.
    #[must_use]
    pub fn derive(&self, purpose: &str) -> Self {
        let derived = |key: &RingKey| RingKey { key: key.key.derive(purpose), ..key.clone() };
        Self { oldest: derived(&self.oldest), later: self.later.iter().map(derived).collect() }
    }

    /// The ring with the keys of another ring, which open as well.
    #[must_use]
    pub fn opening_also(mut self, other: &Self) -> Self {
        let opens = |key: &RingKey| RingKey { seals_from: Some(Timestamp::LAST), ..key.clone() };
        self.later.extend(other.keys().map(opens));
        self
    }

    /// The first key.
    #[must_use]
    pub const fn oldest(&self) -> &SecretKey {
        &self.oldest.key
    }

    /// When the newest key begins to seal; `None` for the first key of a system.
    #[must_use]
    pub fn seals_from(&self) -> Option<Timestamp> {
        self.later.last().unwrap_or(&self.oldest).seals_from
    }

    /// Whether two keys are accepted.
    #[must_use]
    pub const fn is_rotating(&self) -> bool {
        !self.later.is_empty()
    }

    /// The key that a system was created with, if it never had another one.
    #[must_use]
    pub fn original(&self) -> Option<&SecretKey> {
        let is_first = self.oldest.seals_from.is_none() && self.later.is_empty();
        is_first.then_some(&self.oldest.key)
    }

    fn keys(&self) -> impl Iterator<Item = &RingKey> {
        std::iter::once(&self.oldest).chain(&self.later)
    }

    /// The key that seals at a time.
    fn sealing(&self, now: Timestamp) -> &RingKey {
        let due = self.later.iter().rev().find(|key| key.is_due(now));
        due.unwrap_or(&self.oldest)
    }

    /// All keys, the one that seals at a time first.
    fn ordered(&self, now: Timestamp) -> impl Iterator<Item = &SecretKey> {
        let first = self.sealing(now);
        let others = self.keys().filter(move |key| !std::ptr::eq(*key, first));
        std::iter::once(first).chain(others).map(|key| &key.key)
    }
}

/// A key that may be rotated while it is in use. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RotatingKey {
    ring: Arc<RwLock<Ring>>,
    /// The purpose for which the ring's keys are derived; `None` for the keys themselves.
    purpose: Option<&'static str>,
}

impl RotatingKey {
    /// Reads a file, and again every two seconds until `stop`. If it becomes unusable, the keys stay: it may be copied
    /// just now.
    ///
    /// # Errors
    /// [`KeyError`]
    pub fn follow(path: &Path, stop: &CancellationToken) -> Result<Self, KeyError> {
        let key = Self::from(Ring::read(path)?);
        key.read_again(path.to_owned(), stop.clone());
        Ok(key)
    }

    /// The key that is derived from this one for a purpose.
    #[must_use]
    pub fn derive(&self, purpose: &'static str) -> Self {
        Self { ring: Arc::clone(&self.ring), purpose: Some(purpose) }
    }

    /// All keys, the one that seals now first.
    #[must_use]
    pub fn accepted(&self) -> Vec<SecretKey> {
        let ring = self.ring.read().unwrap_or_else(PoisonError::into_inner);
        ring.ordered(ambient::now()).map(|key| self.derived(key)).collect()
    }

    /// The key that seals now.
    #[must_use]
    pub fn sealing(&self) -> SecretKey {
        let ring = self.ring.read().unwrap_or_else(PoisonError::into_inner);
        self.derived(&ring.sealing(ambient::now()).key)
    }

    /// Whether two keys are accepted, and the newer one seals already.
    #[must_use]
    pub fn has_rotated(&self) -> bool {
        let ring = self.ring.read().unwrap_or_else(PoisonError::into_inner);
        ring.later.last().is_some_and(|key| key.is_due(ambient::now()))
    }

    fn derived(&self, key: &SecretKey) -> SecretKey {
        self.purpose.map_or_else(|| key.clone(), |purpose| key.derive(purpose))
    }

    fn read_again(&self, path: PathBuf, stop: CancellationToken) {
        let ring = Arc::clone(&self.ring);
        #[expect(
            clippy::disallowed_methods,
            reason = "ends with its stop token, which every caller has"
        )]
        tokio::spawn(async move {
            let mut look = interval(RELOAD_EVERY);
            look.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut is_failing = false;
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    _ = look.tick() => {}
                }
                let from = path.clone();
                match tokio::task::spawn_blocking(move || Ring::read(&from)).await {
                    Ok(Ok(read)) => {
                        is_failing = false;
                        let mut ring = ring.write().unwrap_or_else(PoisonError::into_inner);
                        if *ring.text() != *read.text() {
                            tracing::info!(
                                file = %path.display(),
                                keys = read.keys().count(),
                                seals_from = read.seals_from().map(|from| from.to_string()),
                                "took the keys of a rotation"
                            );
                        }
                        *ring = read;
                    }
                    Ok(Err(error)) if !is_failing => {
                        is_failing = true;
                        tracing::warn!(%error, "cannot read a key file again; keeping the keys from before");
                    }
                    Ok(Err(_)) | Err(_) => {}
                }
            }
        });
    }
}

impl From<Ring> for RotatingKey {
    fn from(ring: Ring) -> Self {
        Self { ring: Arc::new(RwLock::new(ring)), purpose: None }
    }
}

/// A key that is never rotated.
impl From<SecretKey> for RotatingKey {
    fn from(key: SecretKey) -> Self {
        Self::from(Ring { oldest: RingKey { key, seals_from: None }, later: Vec::new() })
    }
}

fn content(path: &Path, expected: &'static str) -> KeyError {
    KeyError::Content { path: path.into(), expected }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path() -> &'static Path {
        Path::new("application.key")
    }

    fn generated() -> SecretKey {
        SecretKey::generate().unwrap()
    }

    fn original(key: &SecretKey) -> Ring {
        Ring::parse(&format!("{}\n", *key.to_base64()), path()).unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_unix_seconds(1_800_000_000 + second).unwrap()
    }

    fn ordered(ring: &Ring, now: Timestamp) -> Vec<[u8; 32]> {
        ring.ordered(now).map(|key| *key.expose()).collect()
    }

    #[test]
    fn a_file_with_one_key_is_a_ring_of_one() {
        let key = generated();
        let ring = original(&key);
        assert_eq!(ordered(&ring, at(0)), [*key.expose()]);
        assert!(!ring.is_rotating() && ring.original().is_some());
    }

    #[test]
    fn a_new_key_opens_at_once_and_seals_from_its_time_on() {
        let (old, new) = (generated(), generated());
        let ring = original(&old).with(new.clone(), at(10));
        let ring = Ring::parse(&ring.text(), path()).unwrap();
        assert_eq!(ordered(&ring, at(9)), [*old.expose(), *new.expose()]);
        assert_eq!(ordered(&ring, at(10)), [*new.expose(), *old.expose()]);
        let finished = Ring::parse(&ring.finished().text(), path()).unwrap();
        assert_eq!(ordered(&finished, at(0)), [*new.expose()], "whatever the clock says");
        assert!(
            finished.original().is_none(),
            "nothing may be derived from it as if it were first"
        );
    }

    #[test]
    fn a_file_that_arrived_in_part_is_never_the_new_key_alone() {
        let (old, new) = (generated(), generated());
        let whole = original(&old).with(new.clone(), at(10)).text();
        for end in 0..whole.len() {
            if let Ok(part) = Ring::parse(&whole[..end], path()) {
                assert_eq!(part.oldest().expose(), old.expose(), "{end} bytes");
            }
        }
    }

    #[test]
    fn a_ring_has_two_keys_at_most() {
        let ring = original(&generated()).with(generated(), at(1)).with(generated(), at(2));
        assert!(Ring::parse(&ring.text(), path()).is_err());
        assert!(Ring::parse("", path()).is_err());
        let two = format!("{}{}", *original(&generated()).text(), *original(&generated()).text());
        assert!(Ring::parse(&two, path()).is_err(), "nobody knows which one seals");
    }

    #[test]
    fn derived_keys_rotate_with_the_ring_that_they_come_from() {
        let (old, new) = (generated(), generated());
        let ring = original(&old).with(new.clone(), at(10));
        let derived = ring.derive("links");
        let expected = [new.derive("links"), old.derive("links")].map(|key| *key.expose());
        assert_eq!(ordered(&derived, at(10)), expected);
        assert_eq!(derived.seals_from(), ring.seals_from());
    }
}
