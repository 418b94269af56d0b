//! The packing of snapshots: S2, the framing of Snappy with larger blocks and copies that name no offset.
//!
//! The server packs a snapshot in blocks of a megabyte. Taken back, one block is thousands of messages that it
//! stores one by one, with a sync of the disk for each, and it gives up when it hears nothing for 5 seconds
//! meanwhile (2.15.1, tried: 4.2 s for a block on a busy disk). So a snapshot is unpacked here and sent in small
//! frames that are not packed, each of which it has stored long before.
//!
//! Every block carries a checksum of what is in it, so a fault of this file would be seen and not restored.

/// Bytes of one frame that is sent: about a hundred of the smallest messages.
pub const FRAME_BYTES_MAX: usize = 8 << 10;
/// Largest block that a writer of S2 makes.
const BLOCK_BYTES_MAX: usize = 4 << 20;
/// Length of a chunk's head: kind and length.
const HEAD_BYTES: usize = 4;
/// Length of the checksum before the content.
const SUM_BYTES: usize = 4;

const PACKED: u8 = 0x00;
const PLAIN: u8 = 0x01;
const MAGIC: u8 = 0xff;
const SNAPPY: [u8; 10] = *b"\xff\x06\x00\x00sNaPpY";

/// What was read is no snapshot, or a damaged one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the packing is damaged: {0}")]
pub struct Damaged(&'static str);

/// Unpacks what comes in pieces of any size.
#[derive(Debug, Default)]
pub struct Unpacker {
    pending: Vec<u8>,
    unpacked: Vec<u8>,
}

impl Unpacker {
    /// Takes a piece in and gives the frames that it completes.
    ///
    /// # Errors
    /// [`Damaged`].
    pub fn take(&mut self, piece: &[u8]) -> Result<Vec<Vec<u8>>, Damaged> {
        self.pending.extend_from_slice(piece);
        let mut at = 0;
        while let Some((kind, body, next)) = chunk(&self.pending, at) {
            match kind {
                PACKED | PLAIN => {
                    let (sum, content) =
                        body.split_first_chunk::<SUM_BYTES>().ok_or(Damaged("a short chunk"))?;
                    let before = self.unpacked.len();
                    match kind {
                        PLAIN => self.unpacked.extend_from_slice(content),
                        _ => unpack(content, &mut self.unpacked)?,
                    }
                    let block = self.unpacked.get(before..).unwrap_or_default();
                    if checksum(block) != u32::from_le_bytes(*sum) {
                        return Err(Damaged("a checksum differs"));
                    }
                }
                0x80..=MAGIC => {}
                _ => return Err(Damaged("a chunk of an unknown kind")),
            }
            at = next;
        }
        self.pending.drain(..at);
        if self.pending.len() > 2 * BLOCK_BYTES_MAX {
            return Err(Damaged("a chunk is too long"));
        }
        let whole = self.unpacked.len() - self.unpacked.len() % FRAME_BYTES_MAX;
        let frames = self.unpacked.chunks_exact(FRAME_BYTES_MAX).map(frame).collect();
        self.unpacked.drain(..whole);
        Ok(frames)
    }

    /// The last frame.
    ///
    /// # Errors
    /// [`Damaged`] when the end is missing.
    pub fn end(self) -> Result<Vec<u8>, Damaged> {
        if self.pending.is_empty() {
            Ok(frame(&self.unpacked))
        } else {
            Err(Damaged("it is cut off"))
        }
    }
}

/// What every sequence of frames begins with.
#[must_use]
pub const fn beginning() -> [u8; 10] {
    SNAPPY
}

/// The chunk at a place: its kind, its content, and where the next one begins. `None` when it is not there whole.
fn chunk(bytes: &[u8], at: usize) -> Option<(u8, &[u8], usize)> {
    let [kind, low, middle, high] = *bytes.get(at..)?.first_chunk::<HEAD_BYTES>()?;
    let length = u32::from_le_bytes([low, middle, high, 0]) as usize;
    let begin = at + HEAD_BYTES;
    let next = begin + length;
    Some((kind, bytes.get(begin..next)?, next))
}

/// A frame that is not packed.
fn frame(content: &[u8]) -> Vec<u8> {
    if content.is_empty() {
        return Vec::new();
    }
    let length = u32::try_from(content.len() + SUM_BYTES).unwrap_or(u32::MAX);
    let [low, middle, high, _] = length.to_le_bytes();
    let mut frame = vec![PLAIN, low, middle, high];
    frame.extend_from_slice(&checksum(content).to_le_bytes());
    frame.extend_from_slice(content);
    frame
}

/// CRC-32C, masked as Snappy's framing has it.
fn checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// A block that is read byte by byte.
struct Block<'a>(&'a [u8]);

impl<'a> Block<'a> {
    fn byte(&mut self) -> Result<usize, Damaged> {
        let (first, rest) = self.0.split_first().ok_or(CUT)?;
        self.0 = rest;
        Ok(usize::from(*first))
    }

    /// A number of so many bytes, the lowest first.
    fn number(&mut self, bytes: u32) -> Result<usize, Damaged> {
        (0..bytes).try_fold(0, |number, n| Ok(number | self.byte()? << (8 * n)))
    }

    fn varint(&mut self) -> Result<usize, Damaged> {
        let mut number = 0;
        for n in 0..5 {
            let byte = self.byte()?;
            number |= (byte & 0x7f) << (7 * n);
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Damaged("a length is too long"))
    }

    fn bytes(&mut self, length: usize) -> Result<&'a [u8], Damaged> {
        let (first, rest) = self.0.split_at_checked(length).ok_or(CUT)?;
        self.0 = rest;
        Ok(first)
    }
}

const CUT: Damaged = Damaged("a block is cut off");

/// Unpacks a block behind what is there.
fn unpack(block: &[u8], into: &mut Vec<u8>) -> Result<(), Damaged> {
    let mut block = Block(block);
    let length = block.varint()?;
    if length > BLOCK_BYTES_MAX {
        return Err(Damaged("a block is too long"));
    }
    let begin = into.len();
    let end = begin + length;
    let mut offset = 0;
    while !block.0.is_empty() {
        let tag = block.byte()?;
        let copied = match tag & 3 {
            0 => {
                let literal = match tag >> 2 {
                    short @ 0..60 => short,
                    long => block.number(u32::try_from(long).unwrap_or(63) - 59)?,
                };
                into.extend_from_slice(block.bytes(literal + 1)?);
                0
            }
            1 => {
                let short = tag >> 2 & 7;
                let named = (tag & 0xe0) << 3 | block.byte()?;
                if named > 0 {
                    offset = named;
                    short + 4
                } else {
                    // The offset of before again, which is where S2 differs from Snappy.
                    4 + match short {
                        5 => block.number(1)? + 4,
                        6 => block.number(2)? + (1 << 8),
                        7 => block.number(3)? + (1 << 16),
                        short => short,
                    }
                }
            }
            2 => {
                offset = block.number(2)?;
                (tag >> 2) + 1
            }
            _ => {
                offset = block.number(4)?;
                (tag >> 2) + 1
            }
        };
        if copied > 0 && (offset == 0 || offset > into.len() - begin) {
            return Err(Damaged("a copy of nothing"));
        }
        if into.len() + copied > end {
            return Err(Damaged("a block is longer than it says"));
        }
        // A copy may reach into itself, which repeats what it begins with.
        for _ in 0..copied {
            into.extend(into.get(into.len() - offset).copied());
        }
    }
    if into.len() == end { Ok(()) } else { Err(Damaged("a block is shorter than it says")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 3720 appendix B.4 has the sums of CRC-32C; masked as Snappy does.
    #[test]
    fn the_checksum_is_that_of_the_framing() {
        let mask = |crc: u32| crc.rotate_right(15).wrapping_add(0xa282_ead8);
        assert_eq!(checksum(&[0; 32]), mask(0x8a91_36aa));
        assert_eq!(checksum(&[0xff; 32]), mask(0x62a8_ab43));
    }

    fn packed(block: &[u8], content: &[u8]) -> Vec<u8> {
        let mut chunk = frame(block);
        chunk[0] = PACKED;
        chunk[4..8].copy_from_slice(&checksum(content).to_le_bytes());
        [&b"\xff\x06\x00\x00S2sTwO"[..], &chunk].concat()
    }

    #[test]
    fn literals_copies_and_repeats_are_unpacked() {
        // "abcd", a copy of 6 from 4 back, the same offset again for 4, then for 5 + 4 + 4.
        let block = [27, 3 << 2, b'a', b'b', b'c', b'd', 2 << 2 | 1, 4, 1, 0, 5 << 2 | 1, 0, 5];
        let content = b"abcdabcdabcdabcdabcdabcdabc";
        assert_eq!(content.len(), 4 + 6 + 4 + 13);
        let stream = packed(&block, content);
        // In any pieces.
        for size in [1, 3, stream.len()] {
            let mut unpacker = Unpacker::default();
            for piece in stream.chunks(size) {
                assert_eq!(unpacker.take(piece), Ok(vec![]));
            }
            assert_eq!(unpacker.end(), Ok(frame(content)));
        }
        let mut unpacker = Unpacker::default();
        unpacker.take(&stream[..stream.len() - 1]).unwrap();
        assert!(unpacker.end().is_err(), "cut off");
        for n in 10..stream.len() {
            let mut damaged = stream.clone();
            damaged[n] ^= 1;
            let mut unpacker = Unpacker::default();
            let taken = unpacker.take(&damaged).map(|_| ()).and_then(|()| unpacker.end());
            assert_ne!(taken, Ok(frame(content)), "byte {n}");
        }
    }

    #[test]
    fn frames_are_small_and_read_again() {
        let content: Vec<u8> = (0..50_000_u32).flat_map(u32::to_le_bytes).collect();
        let mut unpacker = Unpacker::default();
        let mut frames = Vec::new();
        for part in content.chunks(60_000) {
            frames.extend(unpacker.take(&frame(part)).unwrap());
        }
        frames.push(unpacker.end().unwrap());
        assert!(frames.iter().all(|frame| frame.len() <= FRAME_BYTES_MAX + 8));
        let mut again = Unpacker::default();
        let mut read = Vec::new();
        for frame in frames {
            read.extend(again.take(&frame).unwrap().into_iter().flat_map(|f| f[8..].to_vec()));
        }
        read.extend(&again.end().unwrap()[8..]);
        assert_eq!(read, content);
    }
}
