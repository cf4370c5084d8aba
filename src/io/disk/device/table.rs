//! Which segments are on a device: the table of one lane, twice.
//!
//! ```text
//! block   0  crc         u32  CRC32C of bytes 4..4096
//!         4  magic       u32  "PLMT"
//!         8  life        u64  the formatting's, as in the superblock
//!        16  generation  u64  one more at each writing
//!        24  number      u32  of this block in its lane's table
//!        28  lane        u16
//!        30  zeros
//!        64  504 slots, u64 each: 0, nothing is there; else the segment's number plus one
//! ```
//! A segment is entered when its zeros are on stable storage: first in the first copy, and when that is on stable
//! storage, in the second. So at any moment one copy of each block is whole. Opening believes the whole copy of the
//! higher generation, and writes it over the other one before anything else; a block of which no copy is whole is no
//! crash's work, and the log does not open. What is entered was zeroed; what was zeroed and not entered is zeroed anew.

use std::collections::BTreeMap;
use std::io;

use super::superblock::{META_BLOCK, SLOTS_PER_BLOCK, Superblock};
use crate::io::SegmentId;

const MAGIC: u32 = u32::from_le_bytes(*b"PLMT");
const SLOTS_AT: usize = 64;
const BYTES: usize = META_BLOCK as usize;

const _: () = assert!(SLOTS_AT + SLOTS_PER_BLOCK as usize * 8 == BYTES);

/// One lane's, as it is on the device.
#[derive(Clone, Debug)]
pub(super) struct Table {
    life: u64,
    lane: u16,
    /// The segment in each slot.
    slots: Vec<Option<SegmentId>>,
    /// And the other way round.
    places: BTreeMap<SegmentId, u64>,
    /// Of each block.
    generations: Vec<u64>,
}

/// A block of which one copy is to be written anew.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Repair {
    pub(super) copy: usize,
    pub(super) number: u32,
}

impl Table {
    /// An empty one.
    pub(super) fn new(superblock: &Superblock, lane: u16) -> Table {
        let blocks = superblock.table_bytes() / META_BLOCK;
        Table {
            life: superblock.life,
            lane,
            slots: vec![None; superblock.segments as usize],
            places: BTreeMap::new(),
            generations: vec![1; blocks as usize],
        }
    }

    /// Reads both copies. `read` gives a copy's block, or the device's error.
    pub(super) fn load(
        superblock: &Superblock,
        lane: u16,
        mut read: impl FnMut(usize, u32, &mut [u8]) -> io::Result<()>,
        block: &mut [u8],
    ) -> Result<(Table, Vec<Repair>), String> {
        let mut table = Table::new(superblock, lane);
        let mut repairs = Vec::new();
        for number in 0..table.generations.len() as u32 {
            let mut copies = [None, None];
            let mut trouble = String::new();
            for (copy, found) in copies.iter_mut().enumerate() {
                match read(copy, number, block) {
                    Ok(()) => *found = table.decode(block, number),
                    Err(error) => trouble = format!("; {error}"),
                }
            }
            let [first, second] = copies;
            let newer = match (&first, &second) {
                (Some(first), Some(second)) if second.0 > first.0 => 1,
                (Some(_), _) => 0,
                (None, Some(_)) => 1,
                (None, None) => {
                    return Err(format!(
                        "both copies of block {number} of the table of segments are damaged{trouble}"
                    ));
                }
            };
            if first != second {
                repairs.push(Repair { copy: 1 - newer, number });
            }
            let (generation, entries) =
                if newer == 0 { first } else { second }.expect("it was just found whole");
            table.generations[number as usize] = generation;
            table.take_in(number, &entries)?;
        }
        Ok((table, repairs))
    }

    fn take_in(&mut self, number: u32, entries: &[u64]) -> Result<(), String> {
        let first = u64::from(number) * SLOTS_PER_BLOCK;
        for (slot, entry) in (first..).zip(entries).filter(|(_, entry)| **entry != 0) {
            let segment = SegmentId(entry - 1);
            let Some(place) = self.slots.get_mut(slot as usize) else {
                return Err(format!("the table of segments tells of slot {slot}, which there is not"));
            };
            *place = Some(segment);
            if let Some(other) = self.places.insert(segment, slot) {
                return Err(format!(
                    "the table of segments has segment {} in slots {other} and {slot}",
                    segment.0
                ));
            }
        }
        Ok(())
    }

    /// Generation and slots of a block that is whole and this table's.
    fn decode(&self, block: &[u8], number: u32) -> Option<(u64, Vec<u64>)> {
        let at = |at: usize, len: usize| {
            block[at..at + len].iter().rev().fold(0u64, |number, byte| number << 8 | u64::from(*byte))
        };
        let is_ours = at(0, 4) == u64::from(crc32c::crc32c(&block[4..BYTES]))
            && at(4, 4) == u64::from(MAGIC)
            && at(8, 8) == self.life
            && at(24, 4) == u64::from(number)
            && at(28, 2) == u64::from(self.lane);
        is_ours.then(|| (at(16, 8), (SLOTS_AT..BYTES).step_by(8).map(|place| at(place, 8)).collect()))
    }

    /// The block as it is to be written.
    pub(super) fn encode(&self, number: u32, block: &mut [u8]) {
        block.fill(0);
        block[4..8].copy_from_slice(&MAGIC.to_le_bytes());
        block[8..16].copy_from_slice(&self.life.to_le_bytes());
        block[16..24].copy_from_slice(&self.generations[number as usize].to_le_bytes());
        block[24..28].copy_from_slice(&number.to_le_bytes());
        block[28..30].copy_from_slice(&self.lane.to_le_bytes());
        let first = number as usize * SLOTS_PER_BLOCK as usize;
        let slots = self.slots[first..].iter().take(SLOTS_PER_BLOCK as usize);
        for (place, slot) in block[SLOTS_AT..].chunks_exact_mut(8).zip(slots) {
            place.copy_from_slice(&slot.map_or(0, |segment| segment.0 + 1).to_le_bytes());
        }
        let crc = crc32c::crc32c(&block[4..BYTES]);
        block[..4].copy_from_slice(&crc.to_le_bytes());
    }

    /// How many blocks it has.
    pub(super) fn blocks(&self) -> u32 {
        self.generations.len() as u32
    }

    /// Enters a segment into a free slot; returns the block that says so and is to be written.
    pub(super) fn enter(&mut self, slot: u64, segment: SegmentId) -> u32 {
        let place = &mut self.slots[slot as usize];
        assert!(
            place.is_none() && !self.places.contains_key(&segment),
            "a slot and a segment are entered once"
        );
        *place = Some(segment);
        self.places.insert(segment, slot);
        let number = (slot / SLOTS_PER_BLOCK) as u32;
        self.generations[number as usize] += 1;
        number
    }

    /// The slot of a segment.
    pub(super) fn slot_of(&self, segment: SegmentId) -> Option<u64> {
        self.places.get(&segment).copied()
    }

    /// The first slot in which nothing is.
    pub(super) fn free(&self) -> Option<u64> {
        self.slots.iter().position(Option::is_none).map(|slot| slot as u64)
    }

    /// The segments that are there, ascending.
    pub(super) fn segments(&self) -> Vec<SegmentId> {
        self.places.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::superblock::tests::owner;
    use super::*;

    /// Both copies of every block, as a device would hold them.
    type Image = Vec<[Vec<u8>; 2]>;

    fn superblock() -> Superblock {
        // Enough slots for three blocks.
        Superblock::lay_out(owner(1), 10 << 30, 512, 8 << 20, 77).expect("it is large enough")
    }

    fn image(table: &Table) -> Image {
        let mut block = vec![0; BYTES];
        let mut encoded = |number| {
            table.encode(number, &mut block);
            [block.clone(), block.clone()]
        };
        (0..table.blocks()).map(&mut encoded).collect()
    }

    fn load(image: &Image) -> Result<(Table, Vec<Repair>), String> {
        let read = |copy: usize, number: u32, into: &mut [u8]| {
            into.copy_from_slice(&image[number as usize][copy]);
            Ok(())
        };
        Table::load(&superblock(), 0, read, &mut vec![0; BYTES])
    }

    #[test]
    fn it_is_read_as_it_was_written() {
        let mut table = Table::new(&superblock(), 0);
        assert_eq!((table.blocks(), table.free()), (3, Some(0)));
        assert_eq!(table.enter(0, SegmentId(7)), 0);
        assert_eq!(table.enter(1, SegmentId(0)), 0);
        assert_eq!(table.enter(600, SegmentId(900)), 1);
        let (found, repairs) = load(&image(&table)).expect("it is whole");
        assert_eq!(found.segments(), [0, 7, 900].map(SegmentId));
        assert_eq!(found.slot_of(SegmentId(900)), Some(600));
        assert_eq!((found.slot_of(SegmentId(1)), found.free()), (None, Some(2)));
        assert_eq!((found.generations, repairs), (vec![3, 2, 1], vec![]));
    }

    /// Whatever a cut leaves of the two writes, the entry is there or not, and the next opening begins whole.
    #[test]
    fn of_an_entry_that_a_crash_tore_the_copy_that_is_whole_is_believed() {
        let mut table = Table::new(&superblock(), 0);
        table.enter(0, SegmentId(0));
        let before = image(&table);
        table.enter(1, SegmentId(1));
        let after = image(&table);
        for torn in [0, 1, 63, 64, 72, 80, 512, 2048, BYTES] {
            for copy in 0..2 {
                let mut cut = before.clone();
                if copy == 1 {
                    // The second copy is begun when the first is done.
                    cut[0][0].clone_from(&after[0][0]);
                }
                cut[0][copy][..torn].copy_from_slice(&after[0][copy][..torn]);
                let is_entered = copy == 1 || cut[0][0] == after[0][0];
                let is_same = cut[0][0] == cut[0][1];
                let (found, repairs) = load(&cut).expect("one copy is whole");
                assert_eq!(found.slot_of(SegmentId(1)).is_some(), is_entered, "copy {copy} torn at {torn}");
                assert_eq!(repairs.len(), usize::from(!is_same), "copy {copy} torn at {torn}");
                let mut mended = vec![0; BYTES];
                found.encode(0, &mut mended);
                repairs.iter().for_each(|repair| cut[0][repair.copy].clone_from(&mended));
                let (again, repairs) = load(&cut).expect("it is whole");
                assert_eq!((again.segments(), repairs), (found.segments(), vec![]));
            }
        }
    }

    #[test]
    fn a_block_without_a_whole_copy_and_contradictions_are_told() {
        let mut table = Table::new(&superblock(), 0);
        table.enter(0, SegmentId(0));
        let good = image(&table);
        let mut damaged = good.clone();
        damaged[1][0][100] ^= 1;
        assert_eq!(load(&damaged).expect("one copy is whole").1, [Repair { copy: 0, number: 1 }]);
        damaged[1][1][2000] ^= 1;
        let why = load(&damaged).expect_err("none is whole");
        assert!(why.contains("both copies of block 1"), "{why}");
        // Of an earlier formatting, of another lane, in another place.
        for wrong in [Table { life: 78, ..table.clone() }, Table { lane: 1, ..table.clone() }] {
            load(&image(&wrong)).expect_err("it is not this device's");
        }
        let mut swapped = good.clone();
        swapped.swap(1, 2);
        load(&swapped).expect_err("blocks lie elsewhere");

        let mut twice = table.clone();
        twice.slots[5] = Some(SegmentId(0));
        assert!(load(&image(&twice)).expect_err("one segment, two slots").contains("slots 0 and 5"));
        let mut beyond = table.clone();
        beyond.slots.resize(3 * SLOTS_PER_BLOCK as usize, Some(SegmentId(4000)));
        assert!(load(&image(&beyond)).expect_err("no such slot").contains("which there is not"));
    }
}
