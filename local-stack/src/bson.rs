//! As much of BSON and of the MongoDB wire protocol as it takes to set up a replica set.
//!
//! Five small commands do not justify a driver with its asynchronous runtime in a crate that
//! otherwise needs three dependencies. Written after <https://bsonspec.org/spec.html> and the
//! `OP_MSG` page of the MongoDB manual. Not for anything else: most types are read but not kept.

use std::io::{self, Read, Write};

/// The longest reply that is read; the largest one asked for has about 50 KiB.
const REPLY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How deep documents may be nested: MongoDB's own limit.
const DEPTH_MAX: usize = 100;
/// The operation code of `OP_MSG`.
const OP_MSG: i32 = 2013;
/// Length, request id, reply id, operation code.
const HEADER_BYTES: usize = 16;

/// A document: its fields in order.
pub(crate) type Document = Vec<(String, Value)>;

/// A value. Only these can be written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Text(String),
    Document(Document),
    Array(Vec<Value>),
    Bool(bool),
    Int(i32),
    Long(i64),
    Double(f64),
    /// A type nobody here looks at.
    Other,
}

impl Value {
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    pub(crate) fn as_text(&self) -> Option<&str> {
        if let Self::Text(text) = self {
            return Some(text);
        }
        None
    }

    pub(crate) fn as_array(&self) -> Option<&[Self]> {
        if let Self::Array(values) = self {
            return Some(values);
        }
        None
    }

    pub(crate) fn as_document(&self) -> Option<&Document> {
        if let Self::Document(document) = self {
            return Some(document);
        }
        None
    }

    /// A whole number. The server sends small numbers in any of the two integer types.
    pub(crate) fn as_integer(&self) -> Option<i64> {
        if let Self::Int(number) = self {
            return Some(i64::from(*number));
        }
        if let Self::Long(number) = self {
            return Some(*number);
        }
        None
    }

    /// Whether this is the server's way to say yes: `true`, or `ok: 1.0`.
    pub(crate) fn is_true(&self) -> bool {
        *self == Self::Bool(true) || *self == Self::Double(1.0) || self.as_integer() == Some(1)
    }
}

/// The value of a field.
pub(crate) fn field<'a>(document: &'a Document, name: &str) -> Option<&'a Value> {
    document.iter().find_map(|(key, value)| (key == name).then_some(value))
}

/// Sends one command to the `admin` database and reads the reply.
pub(crate) fn command(
    stream: &mut (impl Read + Write),
    mut body: Document,
) -> io::Result<Document> {
    body.push(("$db".to_owned(), Value::text("admin")));
    let mut message = Vec::new();
    message.extend(1_i32.to_le_bytes()); // request id
    message.extend(0_i32.to_le_bytes()); // replies to nothing
    message.extend(OP_MSG.to_le_bytes());
    message.extend(0_u32.to_le_bytes()); // no flags
    message.push(0); // one section: the body
    message.extend(encode(&body)?);
    stream.write_all(&length_with_itself(message.len())?)?;
    stream.write_all(&message)?;

    let mut header = [0; HEADER_BYTES];
    stream.read_exact(&mut header)?;
    let mut header = Cursor(&header);
    let length = header.length()?;
    let (_request, _reply_to) = (header.int()?, header.int()?);
    if header.int()? != OP_MSG {
        return Err(malformed("the reply is not an OP_MSG"));
    }
    let length = length
        .checked_sub(HEADER_BYTES)
        .filter(|length| *length <= REPLY_BYTES_MAX)
        .ok_or_else(|| malformed("the reply has an impossible length"))?;
    let mut reply = vec![0; length];
    stream.read_exact(&mut reply)?;
    let mut reply = Cursor(&reply);
    let _flags = reply.int()?;
    if reply.byte()? != 0 {
        return Err(malformed("the reply does not start with its body"));
    }
    reply.document(0)
}

fn encode(document: &Document) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for (name, value) in document {
        encode_field(&mut bytes, name, value)?;
    }
    bytes.push(0);
    let mut whole = length_with_itself(bytes.len())?.to_vec();
    whole.extend(bytes);
    Ok(whole)
}

fn encode_field(bytes: &mut Vec<u8>, name: &str, value: &Value) -> io::Result<()> {
    let (kind, content) = match value {
        Value::Double(number) => (0x01, number.to_le_bytes().to_vec()),
        Value::Text(text) => {
            let length = i32::try_from(text.len() + 1).map_err(|_| malformed("too long"))?;
            let mut content = length.to_le_bytes().to_vec();
            content.extend(text.as_bytes());
            content.push(0);
            (0x02, content)
        }
        Value::Document(document) => (0x03, encode(document)?),
        Value::Array(values) => {
            let document = values
                .iter()
                .enumerate()
                .map(|(index, value)| (index.to_string(), value.clone()))
                .collect();
            (0x04, encode(&document)?)
        }
        Value::Bool(flag) => (0x08, vec![u8::from(*flag)]),
        Value::Int(number) => (0x10, number.to_le_bytes().to_vec()),
        Value::Long(number) => (0x12, number.to_le_bytes().to_vec()),
        Value::Other => return Err(malformed("this type is not written")),
    };
    bytes.push(kind);
    bytes.extend(name.as_bytes());
    bytes.push(0);
    bytes.extend(content);
    Ok(())
}

/// The length prefix of documents and messages counts its own four bytes.
fn length_with_itself(bytes: usize) -> io::Result<[u8; 4]> {
    i32::try_from(bytes + 4).map(i32::to_le_bytes).map_err(|_| malformed("too long"))
}

fn malformed(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// The bytes that are still to be read.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> io::Result<&'a [u8]> {
        let (taken, rest) =
            self.0.split_at_checked(count).ok_or_else(|| malformed("a document ends too early"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let (taken, rest) = self
            .0
            .split_first_chunk::<N>()
            .ok_or_else(|| malformed("a document ends too early"))?;
        self.0 = rest;
        Ok(*taken)
    }

    fn byte(&mut self) -> io::Result<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn int(&mut self) -> io::Result<i32> {
        self.array().map(i32::from_le_bytes)
    }

    fn length(&mut self) -> io::Result<usize> {
        usize::try_from(self.int()?).map_err(|_| malformed("a length is negative"))
    }

    /// Text up to a zero byte.
    fn name(&mut self) -> io::Result<String> {
        let end = self
            .0
            .iter()
            .position(|byte| *byte == 0)
            .ok_or_else(|| malformed("a name has no end"))?;
        let bytes = self.take(end)?;
        self.byte()?;
        utf8(bytes)
    }

    /// Text with its length in front and a zero byte behind.
    fn text(&mut self) -> io::Result<String> {
        let length = self.length()?;
        let bytes = self.take(length)?;
        match bytes.split_last() {
            Some((0, text)) => utf8(text),
            _ => Err(malformed("a string has no end")),
        }
    }

    fn document(&mut self, depth: usize) -> io::Result<Document> {
        if depth > DEPTH_MAX {
            return Err(malformed("documents are nested too deeply"));
        }
        let length =
            self.length()?.checked_sub(4).ok_or_else(|| malformed("a document is too short"))?;
        let mut inner = Cursor(self.take(length)?);
        let mut fields = Document::new();
        loop {
            let kind = inner.byte()?;
            if kind == 0 {
                return Ok(fields);
            }
            let name = inner.name()?;
            fields.push((name, inner.value(kind, depth)?));
        }
    }

    fn value(&mut self, kind: u8, depth: usize) -> io::Result<Value> {
        Ok(match kind {
            0x01 => Value::Double(f64::from_le_bytes(self.array()?)),
            0x02 => Value::Text(self.text()?),
            0x03 => Value::Document(self.document(depth + 1)?),
            0x04 => Value::Array(
                self.document(depth + 1)?.into_iter().map(|(_, value)| value).collect(),
            ),
            0x08 => Value::Bool(self.byte()? != 0),
            0x10 => Value::Int(self.int()?),
            0x12 => Value::Long(i64::from_le_bytes(self.array()?)),
            _ => {
                self.skip(kind)?;
                Value::Other
            }
        })
    }

    fn skip(&mut self, kind: u8) -> io::Result<()> {
        match kind {
            // Binary: length, subtype, bytes.
            0x05 => {
                let length = self.length()?;
                self.take(1)?;
                self.take(length)?;
            }
            // Object id.
            0x07 => {
                self.take(12)?;
            }
            // Date and timestamp.
            0x09 | 0x11 => {
                self.take(8)?;
            }
            // Regular expression: pattern and options.
            0x0b => {
                self.name()?;
                self.name()?;
            }
            // Code and symbol.
            0x0d | 0x0e => {
                self.text()?;
            }
            // Decimal.
            0x13 => {
                self.take(16)?;
            }
            // Undefined, null, the largest and the smallest key.
            0x06 | 0x0a | 0x7f | 0xff => {}
            _ => return Err(malformed("a value has an unknown type")),
        }
        Ok(())
    }
}

fn utf8(bytes: &[u8]) -> io::Result<String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| malformed("text is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first example of the specification.
    const HELLO_WORLD: &[u8] = b"\x16\0\0\0\x02hello\0\x06\0\0\0world\0\0";

    fn decode(bytes: &[u8]) -> io::Result<Document> {
        Cursor(bytes).document(0)
    }

    #[test]
    fn the_example_of_the_specification_goes_both_ways() {
        let document = vec![("hello".to_owned(), Value::text("world"))];
        assert_eq!(encode(&document).unwrap(), HELLO_WORLD);
        assert_eq!(decode(HELLO_WORLD).unwrap(), document);
    }

    #[test]
    fn every_written_type_is_read_back() {
        let document = vec![
            ("double".to_owned(), Value::Double(1.5)),
            ("int".to_owned(), Value::Int(-7)),
            ("long".to_owned(), Value::Long(i64::MAX)),
            ("bool".to_owned(), Value::Bool(true)),
            ("array".to_owned(), Value::Array(vec![Value::Int(1), Value::Document(Vec::new())])),
        ];
        assert_eq!(decode(&encode(&document).unwrap()).unwrap(), document);
    }

    #[test]
    fn types_that_are_not_kept_are_passed_over() {
        let mut fields = Vec::new();
        for (kind, content) in [
            (0x05_u8, &b"\x02\0\0\0\0ab"[..]),
            (0x07, &[1; 12]),
            (0x09, &[1; 8]),
            (0x0a, &[]),
            (0x0b, b"a\0i\0"),
            (0x11, &[1; 8]),
            (0x13, &[1; 16]),
        ] {
            fields.push(kind);
            fields.extend(b"x\0");
            fields.extend(content);
        }
        fields.extend(b"\x08last\0\x01\0");
        let mut bytes = length_with_itself(fields.len()).unwrap().to_vec();
        bytes.extend(fields);
        let document = decode(&bytes).unwrap();
        assert_eq!(document.len(), 8);
        assert!(field(&document, "last").unwrap().is_true());
    }

    #[test]
    fn no_cut_or_bent_document_is_read() {
        for end in 0..HELLO_WORLD.len() {
            decode(&HELLO_WORLD[..end]).unwrap_err();
        }
        decode(b"\xff\xff\xff\xff").unwrap_err();
        decode(b"\x08\0\0\0\x66x\0\0").unwrap_err();
        let mut deep = Value::Int(1);
        for _ in 0..=DEPTH_MAX {
            deep = Value::Document(vec![("x".to_owned(), deep)]);
        }
        decode(&encode(&vec![("x".to_owned(), deep)]).unwrap()).unwrap_err();
    }
}
