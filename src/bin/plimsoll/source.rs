//! The records of a demo: those of a file, or a generated engine log. Any of them can be had again at any time, so that
//! nothing has to be kept to compare what was replicated with what was submitted.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::common::Failure;

/// Each record begins with its number, little-endian.
pub(crate) const NUMBER_BYTES: usize = 8;

pub(crate) enum Source {
    File { file: File, len_bytes: u64, record_bytes: u64 },
    Generated { seed: u64 },
}

impl Source {
    /// A file in records of so many bytes; without it, so that there are about a thousand, of 64 to 4096 bytes.
    pub(crate) fn file(path: &Path, record_bytes: Option<u64>) -> Result<Source, Failure> {
        let file = File::open(path).map_err(Failure::on(path.display()))?;
        let len_bytes = file.metadata().map_err(Failure::on(path.display()))?.len();
        if len_bytes == 0 {
            return Err(Failure(format!("{} is empty: give a file with something in it", path.display())));
        }
        let record_bytes = record_bytes.unwrap_or((len_bytes / 1000).clamp(64, 4096));
        Ok(Source::File { file, len_bytes, record_bytes })
    }

    /// How many records there are; `None`: without end.
    pub(crate) fn count(&self) -> Option<u64> {
        match self {
            Source::File { len_bytes, record_bytes, .. } => Some(len_bytes.div_ceil(*record_bytes)),
            Source::Generated { .. } => None,
        }
    }

    /// The record of this number.
    pub(crate) fn record(&self, number: u64, into: &mut Vec<u8>) -> io::Result<()> {
        into.clear();
        into.extend_from_slice(&number.to_le_bytes());
        match self {
            Source::File { file, len_bytes, record_bytes } => {
                let from = number * record_bytes;
                let end = NUMBER_BYTES + (*record_bytes).min(len_bytes - from) as usize;
                into.resize(end, 0);
                file.read_exact_at(&mut into[NUMBER_BYTES..], from)
            }
            Source::Generated { seed } => {
                generate(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15), number, into);
                Ok(())
            }
        }
    }
}

/// A transaction as an engine logs it: its number, then a handful of row changes, 64 to about 4096 bytes in all. Most
/// are short.
fn generate(seed: u64, number: u64, into: &mut Vec<u8>) {
    let mut state = seed;
    let mut random = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    };
    // The leading zeros of a random number are distributed as lengths in a log are: each doubling is half as likely.
    let goal = (64_u64 << random().leading_zeros().min(6)) + random() % 64;
    let goal = (goal as usize).min(4096 - 64);
    into.extend_from_slice(b"TXN\0");
    into.extend_from_slice(&1_700_000_000_000_000_u64.wrapping_add(number).to_le_bytes());
    while into.len() < goal {
        let (operation, table) = (random() % 3, random() % 16);
        into.extend_from_slice(&[b"IUD"[operation as usize], table as u8]);
        into.extend_from_slice(&(random() % 1_000_000).to_le_bytes());
        let value = random() % 48;
        into.extend_from_slice(&(value as u16).to_le_bytes());
        (0..value.div_ceil(8)).for_each(|_| into.extend_from_slice(&random().to_le_bytes()));
    }
    into.resize(into.len().max(64), 0);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn generated_records_are_the_same_each_time_and_of_many_lengths() {
        let source = Source::Generated { seed: 7 };
        let (mut one, mut other, mut lengths) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..2000 {
            source.record(number, &mut one).unwrap();
            source.record(number, &mut other).unwrap();
            assert_eq!(one, other);
            assert_eq!(one[..NUMBER_BYTES], number.to_le_bytes());
            assert!((64..=4096).contains(&one.len()), "{}", one.len());
            lengths.push(one.len());
        }
        lengths.sort_unstable();
        assert!(lengths[0] < 100 && lengths[1000] < 200 && lengths[1999] > 2000, "{:?}", lengths[1000]);
    }

    #[test]
    fn a_file_is_cut_whole() {
        let path = std::env::temp_dir().join(format!("plimsoll-source-{}", std::process::id()));
        let bytes: Vec<u8> = (0..1000_u32).map(|at| at as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let source = Source::file(&path, Some(300)).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(source.count(), Some(4));
        let (mut whole, mut record) = (Vec::new(), Vec::new());
        for number in 0..4 {
            source.record(number, &mut record).unwrap();
            whole.extend_from_slice(&record[NUMBER_BYTES..]);
        }
        assert_eq!(whole, bytes);
    }
}
