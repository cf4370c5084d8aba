//! What a device holds, as far as its first and its last MiB tell.

use super::Held;
use super::superblock::{EDGE_BYTES, META_BLOCK, Reading, Superblock};

/// A signature: its name, from which edge it is counted, where, and its bytes.
type Signature = (&'static str, usize, &'static [u8]);

/// The commonest, from the beginning of the device. What is none of them is "something" at its first byte.
const SIGNATURES: &[Signature] = &[
    ("a GUID partition table", 512, b"EFI PART"),
    ("a GUID partition table", 4096, b"EFI PART"),
    ("an ext2, ext3 or ext4 filesystem", 1080, &[0x53, 0xef]),
    ("an XFS filesystem", 0, b"XFSB"),
    ("a btrfs filesystem", 65_600, b"_BHRfS_M"),
    ("swap space", 4086, b"SWAPSPACE2"),
    ("an encrypted volume (LUKS)", 0, b"LUKS\xba\xbe"),
    ("a physical volume of LVM", 512, b"LABELONE"),
    ("a member of a RAID (md)", 4096, &[0xfc, 0x4e, 0x2b, 0xa9]),
    ("a member of a RAID (md)", 0, &[0xfc, 0x4e, 0x2b, 0xa9]),
    ("a FAT filesystem", 82, b"FAT32"),
    ("an NTFS filesystem", 3, b"NTFS    "),
    ("a partition table (MBR)", 510, &[0x55, 0xaa]),
];

/// How long the device was when it was formatted, as its first MiB says; `None`: that has no superblock that is good.
pub(super) fn formatted_bytes(head: &[u8]) -> Option<u64> {
    match Superblock::decode(&head[..META_BLOCK as usize]) {
        Reading::Good(superblock) => Some(superblock.device_bytes).filter(|bytes| *bytes >= 2 * EDGE_BYTES),
        _ => None,
    }
}

/// Judges a device by its first [`EDGE_BYTES`] and those that were its last when it was formatted.
pub(super) fn inspect(head: &[u8], tail: &[u8]) -> Held {
    let block = META_BLOCK as usize;
    let first = Superblock::decode(&head[..block]);
    let second = Superblock::decode(&tail[tail.len() - block..]);
    let rest_of_head = &head[block..];
    let rest_of_tail = &tail[..tail.len() - block];
    let is_rest_blank = is_blank(rest_of_head) && is_blank(rest_of_tail);
    match (first, second) {
        (Reading::Blank, Reading::Blank) if is_rest_blank => Held::Nothing,
        (Reading::Version(version), _) | (Reading::Blank | Reading::Damaged, Reading::Version(version)) => {
            Held::Other(format!(
                "the log of a Plimsoll node, in version {version} of its layout, which this build does not read"
            ))
        }
        (Reading::Good(superblock), Reading::Good(other)) if is_rest_blank && superblock != other => {
            Held::Other(format!("two superblocks that differ: {} and {}", superblock.owner, other.owner))
        }
        (Reading::Good(superblock), Reading::Good(_) | Reading::Blank | Reading::Damaged)
            if is_rest_blank =>
        {
            Held::Log(superblock)
        }
        // The copy at the end counts only where nobody else has begun to use the device.
        (Reading::Blank | Reading::Damaged, Reading::Good(superblock)) if is_rest_blank => {
            match signature(head, 0) {
                Some(name) => Held::Other(written_over(&superblock, name)),
                None => Held::Log(superblock),
            }
        }
        (Reading::Good(superblock), _) => {
            let name = name(head, block).or_else(|| name_tail(tail)).unwrap_or_default();
            Held::Other(written_over(&superblock, &name))
        }
        _ => Held::Other(name(head, 0).or_else(|| name_tail(tail)).unwrap_or_default()),
    }
}

fn written_over(superblock: &Superblock, name: &str) -> String {
    format!("{}, and {name} that was written over it", superblock.owner)
}

fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

/// What stands in the first MiB, from this byte on.
fn name(head: &[u8], from: usize) -> Option<String> {
    let at = from + head[from..].iter().position(|byte| *byte != 0)?;
    Some(match signature(head, from) {
        Some(name) => name.to_owned(),
        None if head.starts_with(b"PLIMSOLL") && from == 0 => {
            "a damaged superblock of a Plimsoll node".to_owned()
        }
        None => format!("something (byte {at} is {:#04x})", head[at]),
    })
}

/// The signature that stands in the first MiB, from this byte on.
fn signature(head: &[u8], from: usize) -> Option<&'static str> {
    let stands = |(_, at, bytes): &&Signature| *at >= from && head[*at..].starts_with(bytes);
    SIGNATURES.iter().find(stands).map(|(name, ..)| *name)
}

fn name_tail(tail: &[u8]) -> Option<String> {
    let at = tail.iter().position(|byte| *byte != 0)?;
    if tail.windows(8).step_by(512).any(|window| window == b"EFI PART") {
        return Some("the backup of a GUID partition table, at its end".to_owned());
    }
    Some(format!("something at its end ({} bytes before it)", tail.len() - at))
}

const _: () = assert!(EDGE_BYTES > 65_600 + 8, "every signature lies in the first MiB");

#[cfg(test)]
mod tests {
    use super::super::superblock::tests::owner;
    use super::*;

    const EDGE: usize = EDGE_BYTES as usize;

    fn blank() -> (Vec<u8>, Vec<u8>) {
        (vec![0; EDGE], vec![0; EDGE])
    }

    fn ours() -> (Superblock, Vec<u8>) {
        let superblock =
            Superblock::lay_out(owner(1), 100 << 20, 512, 8 << 20, 5).expect("it is large enough");
        let mut block = vec![0; META_BLOCK as usize];
        superblock.encode(&mut block);
        (superblock, block)
    }

    fn other(head: &[u8], tail: &[u8]) -> String {
        match inspect(head, tail) {
            Held::Other(what) => what,
            held => panic!("{held:?}"),
        }
    }

    #[test]
    fn every_signature_is_named_and_any_byte_is_something() {
        for (name, at, bytes) in SIGNATURES {
            let (mut head, tail) = blank();
            head[*at..at + bytes.len()].copy_from_slice(bytes);
            assert_eq!(other(&head, &tail), *name, "at {at}");
        }
        for at in [0, 1, 4095, 4096, 300_000, EDGE - 1] {
            let (mut head, tail) = blank();
            head[at] = 0x17;
            assert_eq!(other(&head, &tail), format!("something (byte {at} is 0x17)"));
        }
        let (head, mut tail) = blank();
        tail[EDGE - 512..EDGE - 504].copy_from_slice(b"EFI PART");
        assert_eq!(other(&head, &tail), "the backup of a GUID partition table, at its end");
        tail[EDGE - 512..EDGE - 504].copy_from_slice(b"\0\0\0\0\0\0\0x");
        assert_eq!(other(&head, &tail), "something at its end (505 bytes before it)");
    }

    #[test]
    fn either_copy_of_the_superblock_is_enough_unless_something_was_written_over_the_device() {
        let (head, tail) = blank();
        assert_eq!(inspect(&head, &tail), Held::Nothing);
        let (superblock, block) = ours();
        let (mut head, mut tail) = blank();
        head[..4096].copy_from_slice(&block);
        assert_eq!(inspect(&head, &tail), Held::Log(superblock));
        tail[EDGE - 4096..].copy_from_slice(&block);
        assert_eq!(inspect(&head, &tail), Held::Log(superblock));
        head[20] ^= 1;
        assert_eq!(inspect(&head, &tail), Held::Log(superblock));
        head[..4096].fill(0);
        assert_eq!(inspect(&head, &tail), Held::Log(superblock));
        // A filesystem made since leaves the copy at the end, and its own signature in the block of the first.
        head[1080..1082].copy_from_slice(&[0x53, 0xef]);
        assert_eq!(other(&head, &tail), "an ext2, ext3 or ext4 filesystem");
        // Also one that left the first sector alone.
        head[..4096].copy_from_slice(&block);
        head[512..520].copy_from_slice(b"EFI PART");
        let what = other(&head, &tail);
        assert!(what.contains("node 3") && what.contains("a GUID partition table"), "{what}");
        head[..4096].copy_from_slice(&block);
        head[65_600..65_608].copy_from_slice(b"_BHRfS_M");
        let what = other(&head, &tail);
        assert!(
            what.contains("node 3") && what.ends_with("a btrfs filesystem that was written over it"),
            "{what}"
        );
    }

    #[test]
    fn copies_that_differ_damage_of_both_and_later_versions_are_told() {
        let (superblock, block) = ours();
        let (mut head, mut tail) = blank();
        head[..4096].copy_from_slice(&block);
        let later = Superblock { life: 6, ..superblock };
        later.encode(&mut tail[EDGE - 4096..]);
        assert!(other(&head, &tail).contains("two superblocks that differ"));
        let (mut head, tail) = blank();
        head[..4096].copy_from_slice(&block);
        head[50] ^= 1;
        assert_eq!(other(&head, &tail), "a damaged superblock of a Plimsoll node");
        head[..4096].copy_from_slice(&block);
        head[12] = 9;
        let crc = crc32c::crc32c(&head[12..512]);
        head[8..12].copy_from_slice(&crc.to_le_bytes());
        assert!(other(&head, &tail).contains("version 9"));
    }
}
