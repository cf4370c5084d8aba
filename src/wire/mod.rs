//! Frames: the only code that turns bytes from another process into types.
//!
//! ```text
//! frame    | header 32 B | table: count messages of 64 B | body: the records or payloads, in the order of the table |
//!
//! header    0 magic       u32  "PLM1"
//!           4 len_bytes   u32  of the whole frame
//!           8 kind        u8   1 hello, 2 welcome, 3 refusal, 4 peer, 5 request, 6 reply, 7 aside
//!           9 version     u8   of the protocol
//!          10 count       u16  messages in the table
//!          12 reserved    16 B 0
//!          28 crc         u32  CRC32C of bytes 0..28 and the table
//! ```
//! The table is covered by the frame's checksum, the body by the records' own: no byte is believed unchecked and none
//! is summed twice. Everything is little-endian.

pub mod aside;
pub mod attach;
pub mod client;
pub mod datagram;
pub mod ethernet;
pub mod frame;
pub mod hello;
pub mod identity;
pub mod peer;

/// Why bytes were not understood. Says who broke what, for the log line that precedes the drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// The first bytes are not a frame's.
    Magic(u32),
    /// A protocol version that this build does not speak.
    Version(u8),
    /// The length is below a header or beyond [`crate::limits::FRAME_BYTES_MAX`].
    Length(u32),
    /// The frame's checksum does not hold.
    Checksum,
    /// The frame ends before its table or its body does, or goes on after it.
    Truncated,
    /// A field holds what no writer writes.
    Field(&'static str),
}

impl core::fmt::Display for Malformed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Malformed::Magic(magic) => write!(f, "not a frame: begins with {magic:#010x}"),
            Malformed::Version(version) => write!(f, "protocol version {version} is not spoken here"),
            Malformed::Length(len) => write!(f, "a frame of {len} bytes is out of bounds"),
            Malformed::Checksum => write!(f, "the frame's checksum does not hold"),
            Malformed::Truncated => write!(f, "the frame's parts do not add up to its length"),
            Malformed::Field(name) => write!(f, "field {name} holds what no writer writes"),
        }
    }
}

#[cfg(test)]
mod tests;
