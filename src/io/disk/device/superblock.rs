//! What a device says of itself: whose log it holds, and how it is laid out.
//!
//! ```text
//!  0  magic         "PLIMSOLL"
//!  8  crc           u32  CRC32C of bytes 12..512
//! 12  version       u16  of the layout: 1
//! 14  block_shift   u8   the logical block was 1 << block_shift bytes when it was formatted
//! 15  zero
//! 16  cluster       u64
//! 24  store         u64  the life of the data directory that this belongs to
//! 32  node          u32
//! 36  first_lane    u16
//! 38  lanes         u16  how many lanes' logs lie here: first_lane and those after it
//! 40  segment_bytes u64
//! 48  segments      u64  the slots of each lane
//! 56  device_bytes  u64  the part of the device that is used: its end is where the second copy ends
//! 64  life          u64  drawn at each formatting; also in every block of the table
//! 72  zeros to 512
//! ```
//! Little-endian, in a block of 4 KiB whose rest is zeros. Version and checksum stand where they stand in every
//! version.

use core::fmt;

use crate::limits::{BLOCK_BYTES_MAX, LANES_MAX, SEGMENT_BYTES_MAX};
use crate::types::{ClusterId, LaneId, NodeId, StoreId};

const MAGIC: [u8; 8] = *b"PLIMSOLL";
const VERSION: u16 = 1;
/// What the checksum covers ends here.
const BYTES: usize = 512;
/// And begins here.
const COVERED_FROM: usize = 12;

/// Nothing of the log lies in the first and the last MiB of a device: there is where everybody else keeps signatures.
pub(super) const EDGE_BYTES: u64 = 1 << 20;

/// Tables and superblocks are written in blocks of this size, whatever the device's own is.
pub(super) const META_BLOCK: u64 = BLOCK_BYTES_MAX as u64;

/// Segments begin at multiples of this.
const ALIGN_BYTES: u64 = 1 << 20;

/// The largest device that is used whole: no sum of places overflows.
const DEVICE_BYTES_MAX: u64 = 1 << 52;

/// The most slots of a lane: what is kept in memory of them stays small.
const SEGMENTS_MAX: u64 = 1 << 22;

/// How many slots one block of a table tells of.
pub(super) const SLOTS_PER_BLOCK: u64 = 504;

/// Whose log a device holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Of which cluster.
    pub cluster: ClusterId,
    /// Of which node.
    pub node: NodeId,
    /// Of which life of its data directory.
    pub store: StoreId,
    /// The first lane whose log lies there.
    pub first_lane: LaneId,
    /// How many lanes' logs lie there.
    pub lanes: u16,
}

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// Whose it is.
    pub owner: Owner,
    /// Every segment's size.
    pub segment_bytes: u64,
    /// How many segments each lane has room for.
    pub segments: u64,
    /// How much of the device is used.
    pub device_bytes: u64,
    /// The device's logical block when it was formatted.
    pub block_bytes: u32,
    /// The formatting's own number.
    pub life: u64,
}

/// What a block holds that should be a superblock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    Good(Superblock),
    Blank,
    /// It begins like one, and is damaged.
    Damaged,
    /// Of a version that this build does not read.
    Version(u16),
    /// Something else.
    Alien,
}

impl Superblock {
    /// One for a device of this size, or why it is too small. Room is made for as many segments as fit.
    pub(super) fn lay_out(
        owner: Owner,
        device_bytes: u64,
        block_bytes: usize,
        segment_bytes: u64,
        life: u64,
    ) -> Result<Superblock, String> {
        let device_bytes = (device_bytes - device_bytes % META_BLOCK).min(DEVICE_BYTES_MAX);
        let mut laid = Superblock {
            owner,
            segment_bytes,
            segments: (device_bytes / segment_bytes / u64::from(owner.lanes)).min(SEGMENTS_MAX),
            device_bytes,
            block_bytes: block_bytes as u32,
            life,
        };
        while laid.segments > 0 && !laid.fits() {
            laid.segments -= 1;
        }
        // One to write to and one ahead of it: with less there is no log.
        if laid.segments < 2 {
            let mib = |bytes: u64| bytes >> 20;
            return Err(format!(
                "it has {} MiB: too little for two segments of {} MiB for each of {} lanes",
                mib(device_bytes),
                mib(segment_bytes),
                owner.lanes
            ));
        }
        Ok(laid)
    }

    fn fits(&self) -> bool {
        let end = self.slot_at(self.owner.lanes - 1, self.segments);
        end <= self.table_at(1, 0)
    }

    /// The bytes of one lane's table, of one copy.
    pub(super) fn table_bytes(&self) -> u64 {
        self.segments.div_ceil(SLOTS_PER_BLOCK) * META_BLOCK
    }

    /// Where a copy of a lane's table begins: the first behind the first MiB, the second before the last. `lane` counts
    /// from the device's first.
    pub(super) fn table_at(&self, copy: usize, lane: u16) -> u64 {
        let all = self.table_bytes() * u64::from(self.owner.lanes);
        let begin = if copy == 0 { EDGE_BYTES } else { (self.device_bytes - EDGE_BYTES).saturating_sub(all) };
        begin + u64::from(lane) * self.table_bytes()
    }

    /// Where a slot of a lane begins.
    pub(super) fn slot_at(&self, lane: u16, slot: u64) -> u64 {
        let first =
            (EDGE_BYTES + self.table_bytes() * u64::from(self.owner.lanes)).next_multiple_of(ALIGN_BYTES);
        first + (u64::from(lane) * self.segments + slot) * self.segment_bytes
    }

    /// Where the second copy of the superblock lies.
    pub(super) fn second_at(device_bytes: u64) -> u64 {
        device_bytes - device_bytes % META_BLOCK - META_BLOCK
    }

    /// The block that says it.
    pub(super) fn encode(&self, block: &mut [u8]) {
        block.fill(0);
        let Owner { cluster, node, store, first_lane, lanes } = self.owner;
        block[..8].copy_from_slice(&MAGIC);
        block[12..14].copy_from_slice(&VERSION.to_le_bytes());
        block[14] = self.block_bytes.trailing_zeros() as u8;
        block[16..24].copy_from_slice(&cluster.0.to_le_bytes());
        block[24..32].copy_from_slice(&store.0.to_le_bytes());
        block[32..36].copy_from_slice(&node.0.to_le_bytes());
        block[36..38].copy_from_slice(&first_lane.0.to_le_bytes());
        block[38..40].copy_from_slice(&lanes.to_le_bytes());
        block[40..48].copy_from_slice(&self.segment_bytes.to_le_bytes());
        block[48..56].copy_from_slice(&self.segments.to_le_bytes());
        block[56..64].copy_from_slice(&self.device_bytes.to_le_bytes());
        block[64..72].copy_from_slice(&self.life.to_le_bytes());
        let crc = crc32c::crc32c(&block[COVERED_FROM..BYTES]);
        block[8..12].copy_from_slice(&crc.to_le_bytes());
    }

    /// Reads a block of [`META_BLOCK`] bytes.
    pub(super) fn decode(block: &[u8]) -> Reading {
        assert_eq!(block.len() as u64, META_BLOCK, "a whole block");
        if block.iter().all(|byte| *byte == 0) {
            return Reading::Blank;
        }
        if block[..8] != MAGIC {
            return Reading::Alien;
        }
        let number = |at: usize, len: usize| {
            block[at..at + len].iter().rev().fold(0u64, |number, byte| number << 8 | u64::from(*byte))
        };
        if number(8, 4) != u64::from(crc32c::crc32c(&block[COVERED_FROM..BYTES])) {
            return Reading::Damaged;
        }
        if number(12, 2) != u64::from(VERSION) {
            return Reading::Version(number(12, 2) as u16);
        }
        if block[14] > 12 || block[14] < 9 || block[BYTES..].iter().any(|byte| *byte != 0) {
            return Reading::Damaged;
        }
        let owner = Owner {
            cluster: ClusterId(number(16, 8)),
            store: StoreId(number(24, 8)),
            node: NodeId(number(32, 4) as u32),
            first_lane: LaneId(number(36, 2) as u16),
            lanes: number(38, 2) as u16,
        };
        let found = Superblock {
            owner,
            segment_bytes: number(40, 8),
            segments: number(48, 8),
            device_bytes: number(56, 8),
            block_bytes: 1 << block[14],
            life: number(64, 8),
        };
        if found.is_sound() { Reading::Good(found) } else { Reading::Damaged }
    }

    /// Whether the figures go together, so that no sum made of them overflows and nothing lies over something else.
    fn is_sound(&self) -> bool {
        (1..=LANES_MAX).contains(&self.owner.lanes)
            && self.owner.first_lane.0 <= LANES_MAX - self.owner.lanes
            && self.device_bytes.is_multiple_of(META_BLOCK)
            && (4 * EDGE_BYTES..=DEVICE_BYTES_MAX).contains(&self.device_bytes)
            && (META_BLOCK..=SEGMENT_BYTES_MAX).contains(&self.segment_bytes)
            && self.segment_bytes.is_multiple_of(META_BLOCK)
            && (1..=SEGMENTS_MAX.min(self.device_bytes / self.segment_bytes)).contains(&self.segments)
            && self.fits()
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Owner { cluster, node, store, first_lane, lanes } = self;
        write!(f, "the log of node {node} of cluster {:016x}, store {:016x}, ", cluster.0, store.0)?;
        match lanes {
            1 => write!(f, "lane {first_lane}"),
            _ => write!(f, "lanes {first_lane} to {}", first_lane.0 + lanes - 1),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn owner(lanes: u16) -> Owner {
        Owner {
            cluster: ClusterId(0xc1),
            node: NodeId(3),
            store: StoreId(0x5709e),
            first_lane: LaneId(0),
            lanes,
        }
    }

    #[test]
    fn everything_has_a_place_of_its_own_on_devices_of_any_size() {
        let mib = 1u64 << 20;
        for (device, lanes, segment) in [
            (32, 1, 8),
            (33, 1, 8),
            (100, 3, 8),
            (4096, 1, 64),
            (1 << 20, 4, 64),
            (1 << 24, 256, 8),
            (900, 1, 256),
        ] {
            let device_bytes = device * mib + 512;
            let laid = Superblock::lay_out(owner(lanes), device_bytes, 512, segment * mib, 9)
                .unwrap_or_else(|error| panic!("{device} MiB: {error}"));
            assert_eq!(laid.device_bytes, device * mib);
            let mut ranges = vec![(0, EDGE_BYTES), (laid.device_bytes - EDGE_BYTES, laid.device_bytes)];
            for lane in 0..lanes {
                for copy in 0..2 {
                    let at = laid.table_at(copy, lane);
                    ranges.push((at, at + laid.table_bytes()));
                }
                let at = laid.slot_at(lane, 0);
                assert!(at.is_multiple_of(ALIGN_BYTES));
                ranges.push((at, laid.slot_at(lane, laid.segments)));
            }
            ranges.sort_unstable();
            assert!(ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{device} MiB: {ranges:?}");
            // And little is left over.
            let used = laid.segments * laid.segment_bytes * u64::from(lanes);
            let spare = laid.device_bytes - used;
            assert!(spare < (segment * u64::from(lanes) + 4) * mib + laid.device_bytes / 500, "{spare}");
        }
    }

    #[test]
    fn a_device_without_room_for_two_segments_is_too_small() {
        let why = Superblock::lay_out(owner(2), 30 << 20, 512, 8 << 20, 1).expect_err("it is too small");
        assert_eq!(why, "it has 30 MiB: too little for two segments of 8 MiB for each of 2 lanes");
        Superblock::lay_out(owner(1), 0, 512, 8 << 20, 1).expect_err("there is nothing");
    }

    #[test]
    fn it_is_read_as_it_was_written_and_every_damage_is_seen() {
        let laid = Superblock::lay_out(owner(2), 100 << 20, 4096, 8 << 20, 77).expect("it is large enough");
        let mut block = vec![1; META_BLOCK as usize];
        assert_eq!(Superblock::decode(&block), Reading::Alien);
        laid.encode(&mut block);
        assert_eq!(Superblock::decode(&block), Reading::Good(laid));
        assert_eq!(Superblock::decode(&vec![0; META_BLOCK as usize]), Reading::Blank);
        for at in 8..META_BLOCK as usize {
            let mut damaged = block.clone();
            damaged[at] ^= 4;
            assert_eq!(Superblock::decode(&damaged), Reading::Damaged, "byte {at}");
        }
    }

    #[test]
    fn figures_that_do_not_go_together_are_damage_whatever_the_checksum_says() {
        let good = Superblock::lay_out(owner(2), 100 << 20, 4096, 8 << 20, 77).expect("it is large enough");
        let mut block = vec![0; META_BLOCK as usize];
        for wrong in [
            Superblock { segments: 0, ..good },
            Superblock { segments: good.segments + 1, ..good },
            Superblock { segments: u64::MAX, ..good },
            Superblock { segment_bytes: 0, ..good },
            Superblock { segment_bytes: u64::MAX, ..good },
            Superblock { segment_bytes: 8 << 20 | 1, ..good },
            Superblock { device_bytes: 4096, ..good },
            Superblock { device_bytes: u64::MAX, ..good },
            Superblock { owner: Owner { lanes: 0, ..good.owner }, ..good },
            Superblock { owner: Owner { lanes: u16::MAX, ..good.owner }, ..good },
            Superblock { owner: Owner { first_lane: LaneId(255), ..good.owner }, ..good },
        ] {
            wrong.encode(&mut block);
            assert_eq!(Superblock::decode(&block), Reading::Damaged, "{wrong:?}");
        }
        good.encode(&mut block);
        block[12] = 2;
        let crc = crc32c::crc32c(&block[COVERED_FROM..BYTES]);
        block[8..12].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(Superblock::decode(&block), Reading::Version(2));
    }
}
