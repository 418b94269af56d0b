//! One command to a starting `mongod` over one connection: an `OP_MSG` of the MongoDB wire protocol around BSON.
//!
//! A driver would not do here: it selects servers, and a member without a replica set configuration is none that it
//! selects. Five small commands need no pool, no monitoring and no asynchronous runtime.

use std::io::{self, Read, Write};

use bson::Document;

/// The longest reply that is read; the largest one that is requested has about 50 KiB.
const REPLY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The operation code of `OP_MSG`.
const OP_MSG: i32 = 2013;
/// Length, request id, id of the request that is answered, operation code: 32 bits each.
const HEADER_BYTES: usize = 16;
/// Flags and the kind of the first section.
const PREFIX_BYTES: usize = 5;

/// Sends one command to the `admin` database and reads the reply.
pub(crate) fn command(
    stream: &mut (impl Read + Write),
    mut body: Document,
) -> io::Result<Document> {
    body.insert("$db", "admin");
    let body = body.to_vec().map_err(malformed)?;
    let length = i32::try_from(HEADER_BYTES + PREFIX_BYTES + body.len()).map_err(malformed)?;
    let mut message = Vec::new();
    for number in [length, 1, 0, OP_MSG, 0] {
        message.extend(number.to_le_bytes());
    }
    message.push(0);
    message.extend(body);
    stream.write_all(&message)?;

    let [length, _, _, operation, _] = [(); 5].map(|()| read_i32(stream));
    if operation? != OP_MSG {
        return Err(malformed("the reply is not an OP_MSG"));
    }
    let mut kind = [0];
    stream.read_exact(&mut kind)?;
    let length = usize::try_from(length?).map_err(malformed)?;
    let length = length
        .checked_sub(HEADER_BYTES + PREFIX_BYTES)
        .filter(|length| *length <= REPLY_BYTES_MAX && kind == [0])
        .ok_or_else(|| malformed("the reply has an impossible length or kind"))?;
    let mut reply = vec![0; length];
    stream.read_exact(&mut reply)?;
    Document::from_reader(reply.as_slice()).map_err(malformed)
}

fn read_i32(stream: &mut impl Read) -> io::Result<i32> {
    let mut bytes = [0; 4];
    stream.read_exact(&mut bytes)?;
    Ok(i32::from_le_bytes(bytes))
}

fn malformed(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    use bson::doc;

    /// A connection to a server that has its answer ready.
    struct Answered(Vec<u8>, io::Cursor<Vec<u8>>);

    impl Write for Answered {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Read for Answered {
        fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
            self.1.read(bytes)
        }
    }

    fn answer(length: i32, operation: i32, body: &[u8]) -> io::Result<Document> {
        let mut bytes = Vec::new();
        for number in [length, 7, 1, operation, 0] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.push(0);
        bytes.extend(body);
        let mut stream = Answered(Vec::new(), io::Cursor::new(bytes));
        let reply = command(&mut stream, doc! { "hello": 1 });
        let sent = i32::from_le_bytes(stream.0[..4].try_into().unwrap());
        assert_eq!(usize::try_from(sent).unwrap(), stream.0.len());
        reply
    }

    #[test]
    fn rejects_a_reply_that_is_cut_or_of_another_kind() {
        let body = doc! { "ok": 1.0 }.to_vec().unwrap();
        let length = i32::try_from(21 + body.len()).unwrap();
        assert_eq!(answer(length, OP_MSG, &body).unwrap(), doc! { "ok": 1.0 });
        answer(length, 1, &body).unwrap_err();
        answer(-1, OP_MSG, &body).unwrap_err();
        answer(20, OP_MSG, &body).unwrap_err();
        answer(i32::MAX, OP_MSG, &body).unwrap_err();
        answer(length, OP_MSG, &body[..body.len() - 1]).unwrap_err();
        answer(length, OP_MSG, &vec![0xff; body.len()]).unwrap_err();
    }
}
