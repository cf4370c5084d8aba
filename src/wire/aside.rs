//! What two ends of a TCP link tell each other beside the frames of Raft: how the queue pairs of RDMA find each other.
//!
//! A frame of one row and no body, 96 bytes in all, taken only on a connection that is up. What is not drawn is zero.
//!
//! ```text
//! aside     0 what       u8   1 offer, 2 answer, 3 ended, 4 refusal
//!           1 mtu        u8   1 to 5: 256, 512, 1024, 2048, 4096 bytes; offer and answer
//!           2 lane       u16  whose it is
//!           4 qp         u32  24 bits, not 0: the queue pair; offer and answer
//!           8 psn        u32  24 bits: the first packet that it sends; offer and answer
//!          12 slot_bytes u32  the longest datagram that it takes in, not 0; offer and answer
//!          16 gid        16 B where it is; offer and answer
//!          32 attempt    u64  drawn by who sends: this life of its queue pair; not 0 in offer and answer
//!          40 answers    u64  the attempt of the other end that is meant, not 0; 0 in an offer
//!          48 lid        u16  where it is, on InfiniBand; offer and answer
//!          50 reason     u8   of a refusal: 1 no device, 2 slot_bytes differ, 3 its lane differs
//! ```

use core::fmt;

use bytemuck::{Pod, Zeroable};

use super::Malformed;
use super::frame::{Builder, Kind, open_as};
use crate::limits::LANES_MAX;
use crate::types::LaneId;

/// The bytes of every aside.
pub const ASIDE_BYTES: usize = crate::limits::FRAME_HEADER_BYTES + super::frame::ROW_BYTES;

/// Queue pairs and packets are numbered with 24 bits.
const NUMBER_MAX: u32 = (1 << 24) - 1;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aside {
    /// The lane that it is about.
    pub lane: LaneId,
    /// What is said.
    pub says: Says,
}

/// What an aside says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    /// A queue pair waits for its other end.
    Offer(Attempt, End),
    /// Here is the other end of the attempt that was offered: connected already, for its part.
    Answer(Attempt, End, Answered),
    /// The queue pair that was connected with this one is gone; make another.
    Ended(Answered),
    /// There will be no other end for this attempt.
    Refusal(Answered, Reason),
}

/// One life of a queue pair: drawn at random by the end that it belongs to, never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt(pub u64);

/// The attempt of the receiver that is meant, never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered(pub u64);

/// One end of a reliable connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// The queue pair, 24 bits, not 0.
    pub qp: u32,
    /// The number of the first packet that it sends, 24 bits.
    pub psn: u32,
    /// The longest packet that its port takes, as the verbs number it: 1 to 5.
    pub mtu: u8,
    /// The longest datagram that it takes in.
    pub slot_bytes: u32,
    /// The port's address.
    pub gid: [u8; 16],
    /// The port's local id, on InfiniBand; else 0.
    pub lid: u16,
}

/// Why there is no other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Reason {
    /// The refusing end has no RDMA device at this time.
    NoDevice = 1,
    /// It takes datagrams of another length.
    SlotBytes = 2,
    /// It is another lane.
    Lane = 3,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::NoDevice => "it has no RDMA device at this time",
            Reason::SlotBytes => "its rdma.slot_bytes is another one: give both ends the same",
            Reason::Lane => "it is another lane: addresses are mixed up",
        })
    }
}

#[derive(Clone, Copy, Default, Pod, Zeroable)]
#[repr(C)]
struct Row {
    what: u8,
    mtu: u8,
    lane: u16,
    qp: u32,
    psn: u32,
    slot_bytes: u32,
    gid: [u8; 16],
    attempt: u64,
    answers: u64,
    lid: u16,
    reason: u8,
    reserved: [u8; 13],
}

impl Aside {
    /// Reads a whole frame.
    pub fn decode(frame: &[u8]) -> Result<Aside, Malformed> {
        let (table, body) = open_as(Kind::Aside, frame)?;
        let [bytes] = table else { return Err(Malformed::Field("count")) };
        if !body.is_empty() {
            return Err(Malformed::Truncated);
        }
        let row: Row = bytemuck::pod_read_unaligned(bytes);
        if row.lane >= LANES_MAX {
            return Err(Malformed::Field("lane"));
        }
        let answered = || nonzero("answers", row.answers).map(Answered);
        let attempt = || nonzero("attempt", row.attempt).map(Attempt);
        let says = match row.what {
            1 => Says::Offer(attempt()?, row.end()?),
            2 => Says::Answer(attempt()?, row.end()?, answered()?),
            3 => Says::Ended(answered()?),
            4 => Says::Refusal(answered()?, Reason::from_byte(row.reason)?),
            _ => return Err(Malformed::Field("what")),
        };
        let aside = Aside { lane: LaneId(row.lane), says };
        if bytemuck::bytes_of(&aside.row()) != bytes {
            return Err(Malformed::Field("reserved"));
        }
        Ok(aside)
    }

    /// The whole frame.
    pub fn encode(&self) -> [u8; ASIDE_BYTES] {
        let mut builder = Builder::new(Kind::Aside);
        builder.push(&bytemuck::cast(self.row()), 0);
        let mut frame = [0; ASIDE_BYTES];
        frame.copy_from_slice(builder.seal());
        frame
    }

    fn row(&self) -> Row {
        let lane = self.lane.0;
        match self.says {
            Says::Offer(attempt, end) => Row { what: 1, lane, attempt: attempt.0, ..Row::of(end) },
            Says::Answer(attempt, end, answered) => {
                Row { what: 2, lane, attempt: attempt.0, answers: answered.0, ..Row::of(end) }
            }
            Says::Ended(answered) => Row { what: 3, lane, answers: answered.0, ..Row::default() },
            Says::Refusal(answered, reason) => {
                Row { what: 4, lane, answers: answered.0, reason: reason as u8, ..Row::default() }
            }
        }
    }
}

impl Row {
    fn of(end: End) -> Row {
        let End { qp, psn, mtu, slot_bytes, gid, lid } = end;
        Row { qp, psn, mtu, slot_bytes, gid, lid, ..Row::default() }
    }

    fn end(&self) -> Result<End, Malformed> {
        let Row { qp, psn, mtu, slot_bytes, gid, lid, .. } = *self;
        if !(1..=NUMBER_MAX).contains(&qp) {
            return Err(Malformed::Field("qp"));
        }
        if psn > NUMBER_MAX {
            return Err(Malformed::Field("psn"));
        }
        if !(1..=5).contains(&mtu) {
            return Err(Malformed::Field("mtu"));
        }
        if slot_bytes == 0 {
            return Err(Malformed::Field("slot_bytes"));
        }
        Ok(End { qp, psn, mtu, slot_bytes, gid, lid })
    }
}

impl Reason {
    fn from_byte(byte: u8) -> Result<Reason, Malformed> {
        Ok(match byte {
            1 => Reason::NoDevice,
            2 => Reason::SlotBytes,
            3 => Reason::Lane,
            _ => return Err(Malformed::Field("reason")),
        })
    }
}

fn nonzero(name: &'static str, value: u64) -> Result<u64, Malformed> {
    if value == 0 { Err(Malformed::Field(name)) } else { Ok(value) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::wire::frame::ROW_BYTES;

    const END: End = End { qp: 17, psn: NUMBER_MAX, mtu: 3, slot_bytes: 32 << 10, gid: [9; 16], lid: 5 };

    fn all() -> [Aside; 4] {
        let (attempt, answered) = (Attempt(7), Answered(u64::MAX));
        [
            Says::Offer(attempt, END),
            Says::Answer(attempt, END, answered),
            Says::Ended(answered),
            Says::Refusal(answered, Reason::SlotBytes),
        ]
        .map(|says| Aside { lane: LaneId(3), says })
    }

    /// A sealed frame around this row.
    fn sealed(row: &[u8; ROW_BYTES]) -> Vec<u8> {
        let mut builder = Builder::new(Kind::Aside);
        builder.push(row, 0);
        builder.seal().to_vec()
    }

    #[test]
    fn what_is_written_is_read() {
        for aside in all() {
            assert_eq!(Aside::decode(&aside.encode()), Ok(aside));
        }
    }

    #[test]
    fn an_offer_is_laid_out_as_it_is_drawn() {
        let frame = all()[1].encode();
        let row = &frame[32..];
        assert_eq!((row[0], row[1], row[2], row[3]), (2, 3, 3, 0));
        assert_eq!((&row[4..8], &row[8..12]), (&[17, 0, 0, 0][..], &[255, 255, 255, 0][..]));
        assert_eq!((&row[12..16], &row[16..32]), (&[0, 128, 0, 0][..], &[9; 16][..]));
        assert_eq!((row[32], &row[40..48], &row[48..50]), (7, &[255; 8][..], &[5, 0][..]));
        assert_eq!(row[50..], [0; 14]);
    }

    /// A byte that no writer writes is refused wherever it stands: what is understood is exactly what was written.
    #[test]
    fn every_changed_byte_is_refused_or_read_as_what_it_says() {
        let mut refused = 0;
        for aside in all() {
            let row: [u8; ROW_BYTES] = aside.encode()[32..].try_into().unwrap();
            for at in 0..ROW_BYTES {
                for value in [0, 1, 4, 5, 6, 127, 255] {
                    let mut changed = row;
                    changed[at] = value;
                    match Aside::decode(&sealed(&changed)) {
                        Ok(read) => assert_eq!(read.encode()[32..], changed, "at {at}"),
                        Err(Malformed::Field(_)) => refused += 1,
                        Err(other) => panic!("{other} at {at}"),
                    }
                }
            }
        }
        assert!(refused > 400, "only {refused} were refused");
    }

    #[test]
    fn a_body_a_second_row_and_another_kind_are_refused() {
        let row: [u8; ROW_BYTES] = all()[0].encode()[32..].try_into().unwrap();
        let mut two = Builder::new(Kind::Aside);
        two.push(&row, 0);
        two.push(&row, 0);
        assert_eq!(Aside::decode(two.seal()), Err(Malformed::Field("count")));
        let mut body = Builder::new(Kind::Aside);
        body.push(&row, 1);
        let mut frame = body.seal().to_vec();
        frame.push(0);
        assert_eq!(Aside::decode(&frame), Err(Malformed::Truncated));
        let mut peer = Builder::new(Kind::Peer);
        peer.push(&row, 0);
        assert_eq!(Aside::decode(peer.seal()), Err(Malformed::Field("kind")));
        for cut in 0..ASIDE_BYTES {
            assert!(Aside::decode(&all()[0].encode()[..cut]).is_err());
        }
    }
}
