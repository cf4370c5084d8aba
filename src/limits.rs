//! Every bound that a caller may meet or that modules share. What it means to a caller stands here; who enforces it
//! names it.

use core::time::Duration;

/// The largest logical block of a device that a log can lie on: writes are whole blocks.
pub const BLOCK_BYTES_MAX: usize = 4096;

/// The smallest MTU that a UDP link takes: IPv6 asks for it, so every path has it.
pub const UDP_MTU_BYTES_MIN: usize = 1280;

/// A memory chunk: what the log lays records into, what a disk writes from and what links send from. Two huge pages.
pub const CHUNK_BYTES: usize = 4 << 20;

/// The bytes before a record's payload, on disk and on the wire.
pub const RECORD_HEADER_BYTES: usize = 64;

/// Records begin at multiples of this, so that headers can be read in place.
pub const RECORD_ALIGN_BYTES: usize = 8;

/// The largest payload of one entry. A longer record is cut into parts, each an entry of its own.
pub const ENTRY_PAYLOAD_BYTES_MAX: usize = (1 << 20) - RECORD_HEADER_BYTES;

/// The largest record that a client may submit.
pub const RECORD_BYTES_MAX: usize = 64 << 20;

/// The largest write that one turn makes, its block header included: a batch.
pub const BATCH_BYTES_MAX: usize = 2 << 20;

/// The bytes of an entry with the largest payload.
pub const ENTRY_BYTES_MAX: usize = RECORD_HEADER_BYTES + ENTRY_PAYLOAD_BYTES_MAX;

/// The smallest segment: it holds several of the largest batches.
pub const SEGMENT_BYTES_MIN: u64 = 8 << 20;

/// The largest segment: offsets in a segment fit 32 bits with room.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;

/// How many writes a lane keeps in flight at its disk.
pub const WRITES_IN_FLIGHT_MAX: usize = 16;

/// How many reads (catch-up of followers, clients) a lane keeps in flight at its disk.
pub const READS_IN_FLIGHT_MAX: usize = 8;

/// The largest frame, its header included. A link refuses a longer one before it reserves any memory for it.
pub const FRAME_BYTES_MAX: usize = 4 << 20;

/// The bytes before a frame's table.
pub const FRAME_HEADER_BYTES: usize = 32;

/// How many messages one frame carries at most.
pub const FRAME_MESSAGES_MAX: usize = 1024;

/// The record bytes that one AppendEntries carries at most.
pub const APPEND_BYTES_MAX: usize = 1 << 20;

/// The record bytes that a leader has under way to one follower of one shard at most, before it hears back.
pub const INFLIGHT_BYTES_MAX: u64 = 16 << 20;

/// The AppendEntries that a leader has under way to one follower of one shard at most.
pub const INFLIGHT_APPENDS_MAX: usize = 256;

/// The bytes that may wait for one peer's connection to take them; beyond, sends are refused as `Full`.
pub const PEER_OUTGOING_BYTES_MAX: usize = 16 << 20;

/// The bytes that may wait for one client's connection to take them; a client that falls behind is dropped.
pub const CLIENT_OUTGOING_BYTES_MAX: usize = 8 << 20;

/// How many clients a lane serves at once.
pub const CLIENTS_MAX: usize = 1024;

/// The smallest ring by which an engine's thread reaches a lane: half of it takes a full frame of outcomes.
pub const RING_BYTES_MIN: usize = 256 << 10;

/// And the largest.
pub const RING_BYTES_MAX: usize = 64 << 20;

/// How many such attachments a lane serves at once.
pub const ATTACHMENTS_MAX: usize = 1024;

/// How many submits of one shard may wait for their outcome; beyond, `Busy`.
pub const SUBMITS_PENDING_MAX: usize = 65_536;

/// How many submits one turn takes in for one lane; the rest wait in their sockets for the next.
pub const SUBMITS_PER_TURN_MAX: usize = 1024;

/// And the bytes of them, but for the last frame or submit. What was taken is sent and written before more is, so that
/// peers, disks and the copying of the next records work side by side: when a turn took in up to 2 MiB, records of
/// 286 KB, eight under way, came in writes of all eight, in lockstep at all nodes, and 390 MB/s were committed where it
/// is 540 now.
pub const SUBMIT_BYTES_PER_TURN_MAX: usize = 256 << 10;

/// The bytes of records longer than an entry that a lane puts together at once; beyond, `Busy`.
pub const ASSEMBLY_BYTES_MAX: usize = 2 * RECORD_BYTES_MAX;

/// How long such a record may wait for its next part when others find no room for theirs, and a client for room for
/// that part.
pub const PART_PATIENCE: Duration = Duration::from_secs(10);

/// How many parts such a record may come in: each is an entry, and something is kept for it.
pub const PARTS_MAX: usize = 1024;

/// How many reads of clients one shard holds until there is something to tell; beyond, `Busy`.
pub const READS_WAITING_MAX: usize = 1024;

/// How many clients one stream tells of every change.
pub const SUBSCRIBERS_MAX: usize = 64;

/// How many linearizable reads of one shard wait for their round at once; beyond, they are refused.
pub const READ_INDEXES_WAITING_MAX: usize = 4096;

/// How many DPDK ports a node opens.
pub const DPDK_PORTS_MAX: usize = 16;

/// The frames that a DPDK port's queue holds, each way, at most.
pub const DPDK_QUEUE_FRAMES_MAX: u16 = 4096;

/// And at least: a burst each way and some.
pub const DPDK_QUEUE_FRAMES_MIN: u16 = 64;

/// The longest IP packet that a DPDK port is set up for.
pub const DPDK_MTU_BYTES_MAX: u16 = 9000;

/// And the shortest that it may be set up for: what every IPv4 host takes in.
pub const DPDK_MTU_BYTES_MIN: u16 = 576;

/// How many frames are taken from a DPDK port, or handed to it, at once; and how many wait for room in its ring.
pub const DPDK_BURST_FRAMES: usize = 64;

/// The frames that came on another lane's queue and wait for theirs; beyond, they are dropped.
pub const DPDK_HANDOVER_FRAMES_MAX: u32 = 512;

/// How many hosts a lane knows the Ethernet address of, on one port.
pub const NEIGHBOURS_MAX: usize = 64;

/// The highest term that is believed: no honest cluster gets there, and no sum with it overflows. A message that names
/// a higher one is dropped.
pub const TERM_MAX: u64 = 1 << 62;

/// The highest index that is believed, for the same reason.
pub const INDEX_MAX: u64 = 1 << 62;

/// The most voters of a shard.
pub const VOTERS_MAX: usize = 15;

/// The most lanes of a cluster.
pub const LANES_MAX: u16 = 256;

/// The most shards of a cluster.
pub const SHARDS_MAX: u32 = 65_536;

const _: () = assert!(BATCH_BYTES_MAX <= CHUNK_BYTES, "a batch lies in one chunk");
const _: () = assert!(ENTRY_BYTES_MAX + 2 * BLOCK_BYTES_MAX <= BATCH_BYTES_MAX, "every entry fits a batch");
const _: () = assert!(ENTRY_BYTES_MAX <= APPEND_BYTES_MAX, "every entry fits an append");
const _: () = assert!(
    APPEND_BYTES_MAX + FRAME_HEADER_BYTES + FRAME_MESSAGES_MAX * 64 <= FRAME_BYTES_MAX,
    "an append and a full table fit a frame"
);
const _: () = assert!(SEGMENT_BYTES_MIN >= 2 * BATCH_BYTES_MAX as u64, "a segment holds more than one batch");
const _: () =
    assert!(ENTRY_BYTES_MAX.is_multiple_of(RECORD_ALIGN_BYTES), "the largest entry needs no padding");
const _: () =
    assert!(INFLIGHT_BYTES_MAX >= 2 * APPEND_BYTES_MAX as u64, "a pipeline holds more than one append");
const _: () = assert!(PEER_OUTGOING_BYTES_MAX >= 2 * FRAME_BYTES_MAX, "a link holds more than one frame");
const _: () =
    assert!(PARTS_MAX * ENTRY_PAYLOAD_BYTES_MAX >= RECORD_BYTES_MAX, "the largest record has parts enough");
const _: () = assert!(ASSEMBLY_BYTES_MAX >= RECORD_BYTES_MAX, "the largest record can be put together");
const _: () = assert!(
    FRAME_HEADER_BYTES + FRAME_MESSAGES_MAX * 64 + 64 <= RING_BYTES_MIN / 2,
    "a full frame of outcomes fits a ring's record"
);
const _: () = assert!(DPDK_QUEUE_FRAMES_MIN as usize >= DPDK_BURST_FRAMES, "a ring takes a burst");
const _: () = assert!(
    NEIGHBOURS_MAX >= 2 * VOTERS_MAX,
    "every peer is somebody's neighbour, and some come back elsewhere"
);
