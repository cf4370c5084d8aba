//! What a link over datagrams puts before a frame, or before a piece of one, and what it says besides.
//!
//! ```text
//! datagram  | header 48 B | body |
//!
//! header    0 magic        u32  "PLD1"
//!           4 kind         u8   1 hello, 2 welcome, 3 refusal, 4 data, 5 fragment, 6 repair, 7 credit, 8 bye,
//!                             9 unknown
//!           5 version      u8   of the protocol, as in every frame
//!           6 fragment     u16  5: which; 6: the one that the first bit of the bitmap stands for
//!           8 session      u64  that the receiver drew; 1: 0; 9: that the sender is said to have drawn
//!          16 number       u64  4 to 8: of this datagram within its session, from 0
//!          24 limit        u64  1, 2, 4 to 8: the receiver may number its own datagrams below this
//!          32 frame        u32  5, 6: which frame, counted within the session; begins anew after the last number
//!          36 frame_bytes  u32  4, 5, 6: of the whole frame
//!          40 unit         u16  5, 6: the bytes of every fragment but the last, a multiple of 8
//!          42 reserved     u16  0
//!          44 crc          u32  CRC32C of bytes 0..44, and of the body as drawn but for data and fragment
//!
//! hello     0 session      u64  that the sender drew; never 0
//! welcome   8 takes_bytes  u32  the longest datagram that the sender takes in
//!          12 got_bytes    u32  2: how long the hello was when it came
//!          16 greeting     96 B a whole frame of `wire::hello`
//!         112 padding           zeros
//!
//! refusal   0 greeting     96 B
//!
//! data      0 frame             all of it
//!
//! fragment  0 bytes             of the frame, from fragment * unit on: unit bytes, the last one the rest
//!
//! repair    0 missing           a bitmap, at most 256 B: bit i of byte b stands for fragment `fragment` + 8 b + i
//!
//! credit    0 probe        u32  not 0: to be answered with this as echo
//!           4 echo         u32  not 0: the probe that this answers
//!           8 got_bytes    u32  how long that probe was when it came; 0 exactly if echo is
//!          12 reserved     u32  0
//!          16 padding           zeros
//! ```
//! Bye and unknown have no body. What a kind does not use is zero. Frames have checksums of their own, which are looked
//! at when they are whole. Everything is little-endian.

use bytemuck::{Pod, Zeroable};

use super::Malformed;
use super::frame::{ROW_BYTES, VERSION};
use super::hello::{GREETING_BYTES, Greeting};
use crate::limits::{FRAME_BYTES_MAX, FRAME_HEADER_BYTES};

/// The bytes before every datagram's body.
pub const HEADER_BYTES: usize = 48;

/// The first four bytes of every datagram: "PLD1", read as a little-endian number.
pub const MAGIC: u32 = u32::from_le_bytes(*b"PLD1");

/// The fewest bytes that a frame is cut into at a time.
pub const UNIT_BYTES_MIN: usize = 256;

/// The most bytes that a frame is cut into at a time.
pub const UNIT_BYTES_MAX: usize = 65_528;

/// The most fragments of one frame.
pub const FRAGMENTS_MAX: usize = FRAME_BYTES_MAX.div_ceil(UNIT_BYTES_MIN);

/// The longest bitmap of a repair request.
pub const MISSING_BYTES_MAX: usize = 256;

/// The bytes of a hello or welcome without its padding.
pub const HELLO_BYTES: usize = HEADER_BYTES + OFFER_BYTES + GREETING_BYTES;

/// The bytes of a credit without its padding.
pub const CREDIT_BYTES: usize = HEADER_BYTES + size_of::<Credit>();

/// Numbers and limits beyond this are refused: no session gets there, and sums of two of them do not overflow.
pub const NUMBER_MAX: u64 = 1 << 62;

const OFFER_BYTES: usize = size_of::<Offer>();
const FRAME_BYTES_MIN: usize = FRAME_HEADER_BYTES + ROW_BYTES;
const CRC_AT: usize = HEADER_BYTES - 4;

const HELLO: u8 = 1;
const WELCOME: u8 = 2;
const REFUSAL: u8 = 3;
const DATA: u8 = 4;
const FRAGMENT: u8 = 5;
const REPAIR: u8 = 6;
const CREDIT: u8 = 7;
const BYE: u8 = 8;
const UNKNOWN: u8 = 9;

#[derive(Clone, Copy, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
struct Header {
    magic: u32,
    kind: u8,
    version: u8,
    fragment: u16,
    session: u64,
    number: u64,
    limit: u64,
    frame: u32,
    frame_bytes: u32,
    unit: u16,
    reserved: u16,
    crc: u32,
}

const _: () = assert!(size_of::<Header>() == HEADER_BYTES);
const _: () = assert!(FRAGMENTS_MAX <= u16::MAX as usize + 1, "every fragment has a number");
const _: () = assert!(UNIT_BYTES_MAX.is_multiple_of(8) && UNIT_BYTES_MAX <= u16::MAX as usize);

/// Where a datagram belongs, and how far the other end may go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The id that the receiver drew for the session. Of a hello 0.
    pub session: u64,
    /// Of this datagram within its session. Of hello, welcome, refusal and unknown 0.
    pub number: u64,
    /// The receiver may number its own datagrams below this. Of refusal and unknown 0.
    pub limit: u64,
}

/// What the two ends of a session that begins tell each other about it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Offer {
    /// The id that the sender drew: every datagram to it names this. Never 0.
    pub session: u64,
    /// The longest datagram that the sender takes in.
    pub takes_bytes: u32,
    /// Of a welcome: how long the hello was when it came. Of a hello 0.
    pub got_bytes: u32,
}

/// How a frame is cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cut {
    /// Which frame of the session.
    pub frame: u32,
    /// Its bytes: more than one unit.
    pub frame_bytes: u32,
    /// The bytes of every fragment but the last.
    pub unit: u16,
}

impl Cut {
    /// How many fragments there are: at least two.
    pub fn fragments(&self) -> usize {
        (self.frame_bytes as usize).div_ceil(usize::from(self.unit).max(1))
    }

    /// Which bytes of the frame a fragment is.
    pub fn range(&self, fragment: usize) -> core::ops::Range<usize> {
        let from = fragment * usize::from(self.unit);
        from..(from + usize::from(self.unit)).min(self.frame_bytes as usize)
    }

    fn check(&self) -> Result<(), Malformed> {
        let (bytes, unit) = (self.frame_bytes as usize, usize::from(self.unit));
        if !(UNIT_BYTES_MIN..=UNIT_BYTES_MAX).contains(&unit) || !unit.is_multiple_of(8) {
            return Err(Malformed::Field("unit"));
        }
        if bytes <= unit || bytes > FRAME_BYTES_MAX {
            return Err(Malformed::Field("frame_bytes"));
        }
        Ok(())
    }
}

/// Keepalive, credits by way of its [`Place::limit`], and the path's probe with its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Credit {
    /// Not 0: to be answered with this as echo.
    pub probe: u32,
    /// Not 0: the probe that this answers.
    pub echo: u32,
    /// How long that probe was when it came; 0 exactly if `echo` is.
    pub got_bytes: u32,
    #[doc(hidden)]
    pub reserved: u32,
}

/// What a datagram carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body<'a> {
    /// Somebody wants a session.
    Hello(Offer, Greeting),
    /// It is granted.
    Welcome(Offer, Greeting),
    /// It is not.
    Refusal(Greeting),
    /// A whole frame, its own checksums not looked at.
    Data(&'a [u8]),
    /// A part of one.
    Fragment {
        /// Of which.
        cut: Cut,
        /// Which part.
        fragment: usize,
        /// The part.
        bytes: &'a [u8],
    },
    /// Fragments that did not come.
    Repair {
        /// Of which frame.
        cut: Cut,
        /// What the bitmap's first bit stands for.
        first: usize,
        /// The bitmap.
        missing: &'a [u8],
    },
    /// See [`Credit`].
    Credit(Credit),
    /// The sender ends the session.
    Bye,
    /// The session that was named here is not known.
    Unknown,
}

/// Reads a whole datagram. Everything is checked but the content of data and fragments.
pub fn open(datagram: &[u8]) -> Result<(Place, Body<'_>), Malformed> {
    let Some((head, body)) = datagram.split_first_chunk::<HEADER_BYTES>() else {
        return Err(Malformed::Truncated);
    };
    let header: Header = bytemuck::pod_read_unaligned(head);
    if header.magic != MAGIC {
        return Err(Malformed::Magic(header.magic));
    }
    if header.version != VERSION {
        return Err(Malformed::Version(header.version));
    }
    let drawn = match header.kind {
        HELLO | WELCOME => body.get(..OFFER_BYTES + GREETING_BYTES),
        CREDIT => body.get(..size_of::<Credit>()),
        REFUSAL => Some(body).filter(|body| body.len() == GREETING_BYTES),
        BYE | UNKNOWN => Some(body).filter(|body| body.is_empty()),
        REPAIR => Some(body).filter(|body| (1..=MISSING_BYTES_MAX).contains(&body.len())),
        _ => Some(&[][..]),
    };
    let drawn = drawn.ok_or(Malformed::Truncated)?;
    if checksum(head, drawn) != header.crc {
        return Err(Malformed::Checksum);
    }
    let place = Place { session: header.session, number: header.number, limit: header.limit };
    let read = read_body(&header, body, drawn)?;
    // What the kind does not use must be zero, and so a second writing gives the same bytes. Its checksum was looked
    // at.
    if (Header { crc: header.crc, ..header_of(place, &read) }) != header {
        return Err(Malformed::Field("reserved"));
    }
    check_place(&header, &read)?;
    Ok((place, read))
}

fn read_body<'a>(header: &Header, body: &'a [u8], drawn: &'a [u8]) -> Result<Body<'a>, Malformed> {
    let cut = Cut { frame: header.frame, frame_bytes: header.frame_bytes, unit: header.unit };
    Ok(match header.kind {
        HELLO | WELCOME => {
            check_padding(&body[drawn.len()..])?;
            let (offer, greeting) = drawn.split_at(OFFER_BYTES);
            let offer: Offer = bytemuck::pod_read_unaligned(offer);
            let greeting = Greeting::decode(greeting)?;
            match greeting {
                Greeting::Hello(hello) if header.kind == HELLO => {
                    if offer.got_bytes != 0 {
                        return Err(Malformed::Field("got_bytes"));
                    }
                    if hello.node.is_none() {
                        return Err(Malformed::Field("node"));
                    }
                    Body::Hello(offer, greeting)
                }
                Greeting::Welcome(_) if header.kind == WELCOME => Body::Welcome(offer, greeting),
                _ => return Err(Malformed::Field("kind")),
            }
        }
        REFUSAL => match Greeting::decode(body)? {
            greeting @ Greeting::Refusal(_) => Body::Refusal(greeting),
            _ => return Err(Malformed::Field("kind")),
        },
        DATA => {
            if body.len() != header.frame_bytes as usize {
                return Err(Malformed::Truncated);
            }
            if !(FRAME_BYTES_MIN..=FRAME_BYTES_MAX).contains(&body.len()) {
                return Err(Malformed::Length(header.frame_bytes));
            }
            Body::Data(body)
        }
        FRAGMENT => {
            cut.check()?;
            let fragment = usize::from(header.fragment);
            if fragment >= cut.fragments() {
                return Err(Malformed::Field("fragment"));
            }
            if cut.range(fragment).len() != body.len() {
                return Err(Malformed::Truncated);
            }
            Body::Fragment { cut, fragment, bytes: body }
        }
        REPAIR => {
            cut.check()?;
            let first = usize::from(header.fragment);
            let missing = drawn;
            let mut places = (0..missing.len() * 8).filter(|&bit| missing[bit / 8] >> (bit % 8) & 1 == 1);
            let last = places.next_back().ok_or(Malformed::Field("missing"))?;
            if first + last >= cut.fragments() {
                return Err(Malformed::Field("missing"));
            }
            Body::Repair { cut, first, missing }
        }
        CREDIT => {
            check_padding(&body[drawn.len()..])?;
            let credit: Credit = bytemuck::pod_read_unaligned(drawn);
            if credit.reserved != 0 || (credit.echo == 0) != (credit.got_bytes == 0) {
                return Err(Malformed::Field("echo"));
            }
            Body::Credit(credit)
        }
        BYE => Body::Bye,
        UNKNOWN => Body::Unknown,
        _ => return Err(Malformed::Field("kind")),
    })
}

fn check_place(header: &Header, body: &Body<'_>) -> Result<(), Malformed> {
    if (header.session == 0) != matches!(body, Body::Hello(..)) {
        return Err(Malformed::Field("session"));
    }
    if let Body::Hello(offer, _) | Body::Welcome(offer, _) = body
        && offer.session == 0
    {
        return Err(Malformed::Field("session"));
    }
    if header.number > NUMBER_MAX || header.limit > NUMBER_MAX {
        return Err(Malformed::Field("number"));
    }
    Ok(())
}

fn check_padding(padding: &[u8]) -> Result<(), Malformed> {
    if padding.iter().all(|&byte| byte == 0) { Ok(()) } else { Err(Malformed::Field("padding")) }
}

/// The header of a datagram with this body, checksum included; [`write_body`] writes what comes after it, unless that
/// is data or a fragment, which are sent from where they lie.
pub fn seal(place: Place, body: &Body<'_>) -> [u8; 48] {
    let header = header_of(place, body);
    if matches!(body, Body::Data(_) | Body::Fragment { .. } | Body::Bye | Body::Unknown) {
        return finish(header, &[]);
    }
    let mut drawn = [0; MISSING_BYTES_MAX];
    let drawn_bytes = write_body(body, &mut drawn);
    finish(header, &drawn[..drawn_bytes])
}

/// All but the checksum.
fn header_of(place: Place, body: &Body<'_>) -> Header {
    let Place { session, number, limit } = place;
    let header = Header { magic: MAGIC, version: VERSION, session, number, limit, ..Header::default() };
    let cut = |kind, cut: &Cut, fragment: usize| Header {
        kind,
        fragment: fragment as u16,
        frame: cut.frame,
        frame_bytes: cut.frame_bytes,
        unit: cut.unit,
        ..header
    };
    match body {
        Body::Hello(..) => Header { kind: HELLO, number: 0, ..header },
        Body::Welcome(..) => Header { kind: WELCOME, number: 0, ..header },
        Body::Refusal(_) => Header { kind: REFUSAL, number: 0, limit: 0, ..header },
        Body::Data(frame) => Header { kind: DATA, frame_bytes: frame.len() as u32, ..header },
        Body::Fragment { cut: of, fragment, .. } => cut(FRAGMENT, of, *fragment),
        Body::Repair { cut: of, first, .. } => cut(REPAIR, of, *first),
        Body::Credit(_) => Header { kind: CREDIT, ..header },
        Body::Bye => Header { kind: BYE, ..header },
        Body::Unknown => Header { kind: UNKNOWN, number: 0, limit: 0, ..header },
    }
}

/// As [`seal`] of [`Body::Data`], for a frame of so many bytes that lies in several parts.
pub fn seal_data(place: Place, frame_bytes: usize) -> [u8; 48] {
    let Place { session, number, limit } = place;
    let frame_bytes = frame_bytes as u32;
    let header = Header { magic: MAGIC, version: VERSION, session, number, limit, ..Header::default() };
    finish(Header { kind: DATA, frame_bytes, ..header }, &[])
}

fn finish(mut header: Header, drawn: &[u8]) -> [u8; 48] {
    header.crc = checksum(bytemuck::bytes_of(&header), drawn);
    bytemuck::cast(header)
}

/// Writes what is drawn of a body, without padding, and returns how many bytes that are; of data and fragments none.
///
/// # Panics
/// If `into` is shorter than [`MISSING_BYTES_MAX`].
pub fn write_body(body: &Body<'_>, into: &mut [u8]) -> usize {
    assert!(into.len() >= MISSING_BYTES_MAX, "every body fits");
    let mut put = |at: usize, bytes: &[u8]| {
        into[at..at + bytes.len()].copy_from_slice(bytes);
        at + bytes.len()
    };
    match body {
        Body::Hello(offer, greeting) | Body::Welcome(offer, greeting) => {
            let at = put(0, bytemuck::bytes_of(offer));
            put(at, &greeting.encode())
        }
        Body::Refusal(greeting) => put(0, &greeting.encode()),
        Body::Repair { missing, .. } => put(0, missing),
        Body::Credit(credit) => put(0, bytemuck::bytes_of(credit)),
        Body::Data(_) | Body::Fragment { .. } | Body::Bye | Body::Unknown => 0,
    }
}

fn checksum(header: &[u8], drawn: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&header[..CRC_AT]), drawn)
}

const _: () =
    assert!(OFFER_BYTES + GREETING_BYTES <= MISSING_BYTES_MAX, "every body fits where a bitmap does");

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use super::*;
    use crate::types::{ClusterId, LaneId, NodeId, StoreId};
    use crate::wire::hello::{Hello, Refusal, Welcome};

    const PLACE: Place = Place { session: 9, number: 4, limit: 70 };
    const CUT: Cut = Cut { frame: 3, frame_bytes: 1000, unit: 256 };

    fn write(place: Place, body: &Body<'_>, rest: &[u8]) -> Vec<u8> {
        let mut drawn = [0; MISSING_BYTES_MAX];
        let drawn_bytes = write_body(body, &mut drawn);
        [&seal(place, body)[..], &drawn[..drawn_bytes], rest].concat()
    }

    fn reseal(bytes: &mut [u8], covered: usize) {
        let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..CRC_AT]), &bytes[HEADER_BYTES..covered]);
        bytes[CRC_AT..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
    }

    fn hello() -> (Place, Body<'static>) {
        let hello = Hello {
            cluster: ClusterId(1),
            node: Some(NodeId(2)),
            store: StoreId(3),
            to: Some(NodeId(4)),
            lane: LaneId(0),
            lanes: 1,
        };
        let offer = Offer { session: 5, takes_bytes: 1472, got_bytes: 0 };
        (Place { session: 0, number: 0, limit: 48 }, Body::Hello(offer, Greeting::Hello(hello)))
    }

    fn all() -> Vec<(Place, Body<'static>, Vec<u8>)> {
        static FRAME: [u8; 200] = [7; 200];
        let (to_nobody, hello) = hello();
        let offer = Offer { session: 5, takes_bytes: 1472, got_bytes: 1200 };
        let welcome = Greeting::Welcome(Welcome {
            node: NodeId(2),
            store: StoreId(3),
            lane: LaneId(0),
            lanes: 1,
            shards: 1,
        });
        let unnumbered = Place { number: 0, ..PLACE };
        let bare = Place { limit: 0, ..unnumbered };
        assert_eq!((CUT.fragments(), CUT.range(3)), (4, 768..1000));
        let bodies = [
            (to_nobody, hello, vec![0; 300]),
            (unnumbered, Body::Welcome(offer, welcome), vec![0; 1]),
            (bare, Body::Refusal(Greeting::Refusal(Refusal::Crowded)), vec![]),
            (PLACE, Body::Data(&FRAME), FRAME.to_vec()),
            (PLACE, Body::Repair { cut: CUT, first: 1, missing: &[0b101] }, vec![]),
            (PLACE, Body::Credit(Credit { probe: 1, echo: 2, got_bytes: 64, reserved: 0 }), vec![0; 40]),
            (PLACE, Body::Bye, vec![]),
            (bare, Body::Unknown, vec![]),
        ];
        bodies.into_iter().collect()
    }

    #[test]
    fn what_is_written_is_read() {
        let all = all();
        for (place, body, rest) in &all {
            let bytes = write(*place, body, rest);
            assert_eq!(open(&bytes), Ok((*place, *body)));
        }
        assert_eq!(all.len(), 8);
        let bytes = [7; 232];
        let body = Body::Fragment { cut: CUT, fragment: 3, bytes: &bytes };
        assert_eq!(open(&write(PLACE, &body, &bytes)), Ok((PLACE, body)));
        assert_eq!(seal_data(PLACE, 200), seal(PLACE, &Body::Data(&[7; 200])));
    }

    /// The header, and what is drawn of the body: whatever bit is another, it is seen.
    #[test]
    fn every_bit_that_is_covered_matters() {
        for (place, body, rest) in all() {
            let whole = write(place, &body, &rest);
            let covered = if matches!(body, Body::Data(_)) { HEADER_BYTES } else { whole.len() };
            for bit in 0..covered * 8 {
                let mut bytes = whole.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert!(open(&bytes).is_err(), "{body:?}, bit {bit}");
            }
            for len in 0..HEADER_BYTES {
                assert_eq!(open(&whole[..len]), Err(Malformed::Truncated));
            }
        }
    }

    /// A checksum is right for whoever computes it: what no writer writes is refused all the same.
    #[test]
    fn what_is_out_of_bounds_is_refused() {
        let body = Body::Fragment { cut: CUT, fragment: 3, bytes: &[] };
        let fragment = write(PLACE, &body, &[7; 232]);
        let with = |at: usize, value: &[u8]| {
            let mut bytes = fragment.clone();
            bytes[at..at + value.len()].copy_from_slice(value);
            reseal(&mut bytes, HEADER_BYTES);
            open(&bytes).map(|_| ())
        };
        assert_eq!(with(0, b"PLD1"), Ok(()));
        assert_eq!(with(0, b"PLD2"), Err(Malformed::Magic(u32::from_le_bytes(*b"PLD2"))));
        assert_eq!(with(5, &[9]), Err(Malformed::Version(9)));
        for kind in [0, 10, 255] {
            assert_eq!(with(4, &[kind]), Err(Malformed::Field("kind")));
        }
        assert_eq!(with(6, &[4, 0]), Err(Malformed::Field("fragment")));
        assert_eq!(with(6, &[2, 0]), Err(Malformed::Truncated));
        assert_eq!(with(8, &[0; 8]), Err(Malformed::Field("session")));
        assert_eq!(with(16, &u64::MAX.to_le_bytes()), Err(Malformed::Field("number")));
        assert_eq!(with(24, &u64::MAX.to_le_bytes()), Err(Malformed::Field("number")));
        assert_eq!(with(36, &256_u32.to_le_bytes()), Err(Malformed::Field("frame_bytes")));
        assert_eq!(with(36, &u32::MAX.to_le_bytes()), Err(Malformed::Field("frame_bytes")));
        for unit in [0_u16, 8, 248, 257, u16::MAX] {
            assert_eq!(with(40, &unit.to_le_bytes()), Err(Malformed::Field("unit")));
        }
        assert_eq!(with(42, &[1]), Err(Malformed::Field("reserved")));
    }

    #[test]
    fn repair_asks_for_fragments_that_there_are() {
        let ask = |first: usize, missing: &[u8]| {
            let mut bytes = [&seal(PLACE, &Body::Bye)[..], missing].concat();
            let like = seal(PLACE, &Body::Repair { cut: CUT, first, missing: &[1] });
            bytes[..HEADER_BYTES].copy_from_slice(&like);
            let covered = bytes.len();
            reseal(&mut bytes, covered);
            open(&bytes).map(|_| ())
        };
        assert_eq!(ask(0, &[0b1111]), Ok(()));
        assert_eq!(ask(3, &[0b1]), Ok(()));
        assert_eq!(ask(3, &[0b10]), Err(Malformed::Field("missing")));
        assert_eq!(ask(0, &[0, 1]), Err(Malformed::Field("missing")));
        assert_eq!(ask(0, &[0]), Err(Malformed::Field("missing")));
        assert_eq!(ask(0, &[]), Err(Malformed::Truncated));
        assert_eq!(ask(0, &[1; MISSING_BYTES_MAX + 1]), Err(Malformed::Truncated));
    }
}
