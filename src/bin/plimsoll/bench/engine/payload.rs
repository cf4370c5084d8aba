//! The benchmark's record: 8 bytes of magic, 16 of sequence, 16 of time, and filler.

use core::time::Duration;
use std::ops::Range;

const MAGIC: [u8; 8] = *b"RAFTBNCH";
const SEQUENCE: Range<usize> = 8..24;
const TIME: Range<usize> = 24..40;

/// What every record holds at least.
pub(super) const HEADER_BYTES: u32 = 40;

/// The filler repeats the record's number so often: a part that came from another record shows.
const STAMP_EVERY_BYTES: usize = 4096;

/// Makes the records of one partition in one buffer, and knows them again.
#[derive(Debug)]
pub(super) struct Records {
    partition: u32,
    bytes: Vec<u8>,
}

impl Records {
    pub(super) fn new(partition: u32, len_bytes: u32) -> Records {
        let mut bytes: Vec<u8> =
            (0..len_bytes).map(|at| (at.wrapping_mul(0x9e37_79b9) >> 24) as u8).collect();
        bytes[..8].copy_from_slice(&MAGIC);
        Records { partition, bytes }
    }

    /// The record of this number, due when so much of the run has passed.
    pub(super) fn make(&mut self, number: u64, due: Duration) -> &[u8] {
        self.stamp(number, due.as_nanos());
        &self.bytes
    }

    /// The number of a record, if it is, byte for byte, what was submitted under that number.
    pub(super) fn recognise(&mut self, payload: &[u8]) -> Option<u64> {
        let word = |range: Range<usize>| Some(u128::from_le_bytes(payload.get(range)?.try_into().ok()?));
        let sequence = word(SEQUENCE)?;
        if sequence >> 64 != u128::from(self.partition) {
            return None;
        }
        let number = sequence as u64;
        self.stamp(number, word(TIME)?);
        (self.bytes == payload).then_some(number)
    }

    fn stamp(&mut self, number: u64, time_ns: u128) {
        let sequence = u128::from(self.partition) << 64 | u128::from(number);
        self.bytes[SEQUENCE].copy_from_slice(&sequence.to_le_bytes());
        self.bytes[TIME].copy_from_slice(&time_ns.to_le_bytes());
        for block in self.bytes.chunks_mut(STAMP_EVERY_BYTES).skip(1) {
            if let Some(stamp) = block.first_chunk_mut() {
                *stamp = number.to_le_bytes();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_record_is_known_again_and_another_is_not() {
        let mut records = Records::new(3, 10_000);
        let first = records.make(7, Duration::from_millis(5)).to_vec();
        let second = records.make(8, Duration::from_millis(6)).to_vec();
        assert_eq!(&first[..8], b"RAFTBNCH");
        assert_eq!((records.recognise(&first), records.recognise(&second)), (Some(7), Some(8)));
        let mut mixed = first.clone();
        mixed[5000..].copy_from_slice(&second[5000..]);
        let mut rotten = first.clone();
        *rotten.last_mut().unwrap() ^= 1;
        for wrong in [&mixed[..], &rotten, &first[..9999], &first[..30], &[]] {
            assert_eq!(records.recognise(wrong), None);
        }
        assert_eq!(Records::new(4, 10_000).recognise(&first), None);
    }

    #[test]
    fn the_shortest_is_a_header() {
        let mut records = Records::new(0, HEADER_BYTES);
        let record = records.make(u64::MAX, Duration::MAX).to_vec();
        assert_eq!((record.len(), records.recognise(&record)), (40, Some(u64::MAX)));
    }
}
