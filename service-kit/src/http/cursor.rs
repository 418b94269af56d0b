//! Cursors: the start of the next page, sealed so that nobody can forge one or use it for another query.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use events::Position;
use uuid::Uuid;

use crate::keys::SecretKey;

const TAG_BYTES: usize = 32;
const ID_BYTES: usize = 16;

/// The sort key of an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// The item has no key.
    Absent,
    /// Milliseconds since 1970.
    Time(i64),
    /// A whole number.
    Number(i64),
    /// A text, in its form for comparison.
    Text(String),
}

/// A position in a list: the last item of a page. The next page starts after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// Its sort key.
    pub key: Key,
    /// The item's id, which makes the order total.
    pub id: Uuid,
}

impl Cursor {
    /// The sealed cursor, for the list that `query` describes.
    #[must_use]
    pub fn seal(&self, key: &SecretKey, query: &str) -> String {
        let mut bytes = self.id.as_bytes().to_vec();
        match &self.key {
            Key::Absent => {}
            Key::Time(millis) => {
                bytes.push(b't');
                bytes.extend_from_slice(&millis.to_be_bytes());
            }
            Key::Number(number) => {
                bytes.push(b'n');
                bytes.extend_from_slice(&number.to_be_bytes());
            }
            Key::Text(text) => {
                bytes.push(b's');
                bytes.extend_from_slice(text.as_bytes());
            }
        }
        seal(bytes, key, query)
    }

    /// Opens a sealed cursor; `None` if it was not made for this query.
    #[must_use]
    pub fn open(cursor: &str, key: &SecretKey, query: &str) -> Option<Self> {
        let bytes = open(cursor, key, query)?;
        let (id, key) = bytes.split_at_checked(ID_BYTES)?;
        let key = match key.split_first() {
            None => Key::Absent,
            Some((b't', millis)) => Key::Time(i64::from_be_bytes(millis.try_into().ok()?)),
            Some((b'n', number)) => Key::Number(i64::from_be_bytes(number.try_into().ok()?)),
            Some((b's', text)) => Key::Text(String::from_utf8(text.to_vec()).ok()?),
            Some(_) => return None,
        };
        Some(Self { key, id: Uuid::from_slice(id).ok()? })
    }
}

/// The sealed cursor after an event, in the list of events that `query` describes.
#[must_use]
pub fn seal_position(position: Position, key: &SecretKey, query: &str) -> String {
    seal(position.0.to_be_bytes().to_vec(), key, query)
}

/// Opens a sealed cursor of events; `None` if it was not made for this query.
#[must_use]
pub fn open_position(cursor: &str, key: &SecretKey, query: &str) -> Option<Position> {
    let bytes = open(cursor, key, query)?;
    Some(Position(u64::from_be_bytes(bytes.try_into().ok()?)))
}

fn seal(mut bytes: Vec<u8>, key: &SecretKey, query: &str) -> String {
    let tag = key.mac(&[query.as_bytes(), &bytes]);
    bytes.extend_from_slice(&tag);
    URL_SAFE_NO_PAD.encode(bytes)
}

fn open(cursor: &str, key: &SecretKey, query: &str) -> Option<Vec<u8>> {
    let mut bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
    let tag = bytes.split_off(bytes.len().checked_sub(TAG_BYTES)?);
    key.verifies(&[query.as_bytes(), &bytes], &tag).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_fits_its_query_and_key_alone() {
        let key = SecretKey::generate().unwrap();
        for place in [
            Key::Absent,
            Key::Time(1_700_000_000_000),
            Key::Time(-1),
            Key::Number(-7),
            Key::Text("ada".to_owned()),
            Key::Text(String::new()),
        ] {
            let place = Cursor { key: place, id: Uuid::max() };
            let cursor = place.seal(&key, "role=admin");
            assert_eq!(Cursor::open(&cursor, &key, "role=admin"), Some(place));
            assert_eq!(Cursor::open(&cursor, &key, "role=user"), None);
            assert_eq!(Cursor::open(&cursor, &SecretKey::generate().unwrap(), "role=admin"), None);
            let mut forged = cursor.clone();
            forged.replace_range(0..1, if cursor.starts_with('A') { "B" } else { "A" });
            assert_eq!(Cursor::open(&forged, &key, "role=admin"), None);
        }
        for garbage in ["", "x", "====", &"A".repeat(500)] {
            assert_eq!(Cursor::open(garbage, &key, "role=admin"), None);
        }
        let cursor = seal_position(Position(7), &key, "one");
        assert_eq!(open_position(&cursor, &key, "one"), Some(Position(7)));
        assert_eq!(open_position(&cursor, &key, "two"), None);
    }
}
