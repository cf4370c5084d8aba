/* The C ABI of Plimsoll. Made of src/ffi by .ci/header --write: change it there.
 *
 * What holds for all functions:
 *  - Those that return plimsoll_status answer 0 for success. Otherwise nothing was done and no answer was written,
 *    but for what they say, and plimsoll_last_error tells what happened and what to do about it.
 *  - Null is answered with PLIMSOLL_NULL_ARGUMENT where it is not allowed. A pointer that is neither null nor what it should be, or
 *    a handle that was closed, is undefined behaviour, as everywhere in C.
 *  - A handle is used by one thread at a time and may move between threads; a plimsoll_node and a plimsoll_waker are used by any
 *    number of threads, until they are closed. A handle that is used by two at once answers PLIMSOLL_REENTERED to the one that comes second.
 *  - What a pointer argument points to is read or written during the call only, but for the context of callbacks and what
 *    plimsoll_reserve gives.
 *  - Callbacks are called by plimsoll_poll and plimsoll_replica_poll, on the thread that calls these. They may submit and ask in the same
 *    stream; what they may not call answers PLIMSOLL_REENTERED. No exception and no longjmp may leave a callback: the process ends.
 *  - No panic leaves the library: PLIMSOLL_PANICKED.
 *  - Requests end once each, with a plimsoll_completion, also if the node is lost.
 */

#ifndef PLIMSOLL_H
#define PLIMSOLL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// When a submit is answered.
enum plimsoll_acks
#ifdef __cplusplus
  : uint32_t
#endif // __cplusplus
 {
    // As soon as the leader has taken it: may be lost with the leader.
    PLIMSOLL_ACKS_NONE = 0,
    // When it is durable on the leader's disk.
    PLIMSOLL_ACKS_LEADER = 1,
    // When it is durable on a quorum: survives whatever a quorum survives.
    PLIMSOLL_ACKS_QUORUM = 2,
};
#ifndef __cplusplus
typedef uint32_t plimsoll_acks;
#endif // __cplusplus

// What the node is in a stream's shard.
enum plimsoll_role_kind
#ifdef __cplusplus
  : uint32_t
#endif // __cplusplus
 {
    // It follows.
    PLIMSOLL_ROLE_FOLLOWER = 0,
    // It asks whether it could be elected.
    PLIMSOLL_ROLE_PRE_CANDIDATE = 1,
    // It stands for election.
    PLIMSOLL_ROLE_CANDIDATE = 2,
    // It leads.
    PLIMSOLL_ROLE_LEADER = 3,
    // Nobody knows: the node is gone, or has not told yet. plimsoll_stream_reattach when it runs again.
    PLIMSOLL_ROLE_DETACHED = 4,
    // The node does not tell this stream of roles, epochs and watermarks, while all else works: engine.streams is off
    // in its configuration, or it tells 64 streams of this shard already. It is asked once per attachment: in the
    // latter case close one that is told, then close this one and open it again.
    PLIMSOLL_ROLE_UNTOLD = 5,
};
#ifndef __cplusplus
typedef uint32_t plimsoll_role_kind;
#endif // __cplusplus

// How a call, or a request, has ended. Of calls, 0 is success and what is negative an error, told by
// plimsoll_last_error. What is positive is an outcome: of requests, in a plimsoll_completion.
enum plimsoll_status
#ifdef __cplusplus
  : int32_t
#endif // __cplusplus
 {
    // Done; a request was taken.
    PLIMSOLL_OK = 0,
    // Outcome: it is in the log, as durable as was asked for.
    PLIMSOLL_COMMITTED = 1,
    // Outcome of plimsoll_transfer: it has begun.
    PLIMSOLL_ACCEPTED = 2,
    // Outcome of plimsoll_read_index: all that was acknowledged before it was asked is at or before `index`.
    PLIMSOLL_CONFIRMED = 3,
    // Outcome: not taken, this node does not lead the shard; `leader` says who does, if known.
    PLIMSOLL_NOT_LEADER = 10,
    // Not taken, some bound was met: poll, and try again. Also answered by calls, when the ring is full.
    PLIMSOLL_BUSY = 11,
    // Outcome: not taken, the log is full.
    PLIMSOLL_LOG_FULL = 12,
    // Outcome: taken, but leadership or the node was lost before it was committed; it may survive or not.
    PLIMSOLL_UNKNOWN = 13,
    // Outcome: not taken, the request makes no sense for this shard.
    PLIMSOLL_INVALID = 14,
    // Outcome: not taken, the node is stopping.
    PLIMSOLL_STOPPING = 15,
    // Outcome: not taken, the stream has come to `stamp` already, and stamps grow along a stream.
    PLIMSOLL_BEHIND = 16,
    // Outcome: not taken, no such stream is registered.
    PLIMSOLL_UNREGISTERED = 17,
    // Outcome: not taken, the stamp's epoch takes no records; `stamp.epoch` is the one that does, or will.
    PLIMSOLL_EPOCH_CLOSED = 18,
    // plimsoll_wait, plimsoll_replica_wait: the time is over, and there is nothing to poll.
    PLIMSOLL_TIMED_OUT = -1,
    // A pointer that may not be null is null.
    PLIMSOLL_NULL_ARGUMENT = -2,
    // A number is none of those that are allowed.
    PLIMSOLL_BAD_ARGUMENT = -3,
    // A string is not UTF-8.
    PLIMSOLL_BAD_UTF8 = -4,
    // A record is empty or too long, or a structure has another size than in this library.
    PLIMSOLL_SIZE = -5,
    // The array is too small; the count says how much there is.
    PLIMSOLL_TOO_SMALL = -6,
    // Nothing was reserved, so nothing can be published.
    PLIMSOLL_NOT_RESERVED = -7,
    // A reservation is open: publish or abandon it first.
    PLIMSOLL_RESERVED = -8,
    // The handle is in use: by another thread, or by the call that called this callback.
    PLIMSOLL_REENTERED = -9,
    // The stream is followed already; from where, cannot be changed.
    PLIMSOLL_FOLLOWED = -10,
    // plimsoll_wait, plimsoll_replica_wait: plimsoll_wake was called.
    PLIMSOLL_WOKEN = -11,
    // The attachment has ended, and everything was told: plimsoll_stream_reattach, when the node runs again.
    PLIMSOLL_ENDED = -20,
    // The node refuses: it is of another cluster.
    PLIMSOLL_REFUSED_CLUSTER = -21,
    // The node refuses: there is no such shard.
    PLIMSOLL_REFUSED_SHARD = -22,
    // The node refuses: the session is attached to this shard already.
    PLIMSOLL_REFUSED_HELD = -23,
    // The node refuses: a ring's size is no power of two from 256 KiB to 64 MiB.
    PLIMSOLL_REFUSED_SIZES = -24,
    // The node refuses: session 0 names nobody.
    PLIMSOLL_REFUSED_SESSION = -25,
    // The node refuses: it is stopping.
    PLIMSOLL_REFUSED_STOPPING = -26,
    // The node refuses: its system gives it no memory.
    PLIMSOLL_REFUSED_SYSTEM = -27,
    // The node refuses: it speaks another version.
    PLIMSOLL_REFUSED_VERSION = -28,
    // The node cannot be reached at its socket.
    PLIMSOLL_UNREACHABLE = -29,
    // The configuration is not sound, or cannot be read.
    PLIMSOLL_CONFIG = -40,
    // An address cannot be listened on.
    PLIMSOLL_LISTEN = -41,
    // Engines cannot be let in at engine.socket.
    PLIMSOLL_SOCKET = -42,
    // The data directory is held by another process.
    PLIMSOLL_DATA_HELD = -43,
    // The data directory is somebody else's.
    PLIMSOLL_DATA_FOREIGN = -44,
    // The data directory cannot be used.
    PLIMSOLL_DATA_DIR = -45,
    // A lane had a log, and has none any more.
    PLIMSOLL_LOG_LOST = -46,
    // A lane's log does not open.
    PLIMSOLL_LOG = -47,
    // A block device cannot be used.
    PLIMSOLL_DEVICE = -48,
    // A block device holds something else than this node's log.
    PLIMSOLL_DEVICE_FOREIGN = -49,
    // A lane cannot be set up.
    PLIMSOLL_LANE = -50,
    // The disk of a lane has failed, and the node has stopped. What was acknowledged stands.
    PLIMSOLL_DISK_FAILED = -51,
    // engine.streams is off in the node's configuration, so there are no watermarks.
    PLIMSOLL_NO_STREAMS = -52,
    // The node answers what no node answers: verify its log.
    PLIMSOLL_CORRUPT = -60,
    // A defect in Plimsoll was caught. The handle in which it happened answers nothing else any more; close it,
    // but not from a callback of it.
    PLIMSOLL_PANICKED = -70,
};
#ifndef __cplusplus
typedef int32_t plimsoll_status;
#endif // __cplusplus

// Mako's files, taken together. Nothing changes it, and any thread may use it.
typedef struct plimsoll_mako plimsoll_mako;

// A node in this process.
typedef struct plimsoll_node plimsoll_node;

// A replica of the engine's tables: follows all streams at one node, and gives out what may be replayed. One thread at
// a time uses it, and it may move from one to another.
typedef struct plimsoll_replica plimsoll_replica;

// A thread's stream: the log of one shard, and what the node tells of it. One thread at a time uses it, and it may
// move from one to another; a thread that comes while another is in a call is answered PLIMSOLL_REENTERED and has done
// nothing.
typedef struct plimsoll_stream plimsoll_stream;

// Wakes the thread that waits for a stream or a replica, so that it can be told to stop, say. Any number of threads
// may use it at once.
typedef struct plimsoll_waker plimsoll_waker;

// The engine's epoch and commit timestamp: a place in the order of all streams, the epoch first.
typedef struct plimsoll_stamp {
    // The timestamp: 1 to UINT64_MAX - 1 in a stream's records.
    uint64_t timestamp;
    // The epoch.
    uint32_t epoch;
    // 0.
    uint32_t reserved;
} plimsoll_stamp;

// How far a registered stream has come.
typedef struct plimsoll_stream_stamp {
    // The stamp of the last record of its committed prefix.
    struct plimsoll_stamp stamp;
    // The stream: its shard.
    uint32_t shard;
    // 0.
    uint32_t reserved;
} plimsoll_stream_stamp;

// Who attaches, and how. Fill it with plimsoll_stream_options_init first.
typedef struct plimsoll_stream_options {
    // The size of this structure, set by plimsoll_stream_options_init.
    size_t size_bytes;
    // plimsoll_stream_connect: the cluster, as in the node's configuration. plimsoll_stream_open does not read it.
    const char *cluster;
    // Who submits, as its records will say; not 0. Attached once per shard at any time.
    uint64_t session;
    // The first record's serial number; each has the next one. 1 unless set.
    uint64_t first_serial;
    // The submit ring: a power of two from 256 KiB to 64 MiB. 4 MiB unless set.
    size_t submit_ring_bytes;
    // The completion ring, likewise. Committed records come through it.
    size_t completion_ring_bytes;
    // How long plimsoll_wait looks again and again before it sleeps. 20 unless set.
    uint32_t spin_us;
    // The shard, which is the stream. 0 unless set.
    uint32_t shard;
} plimsoll_stream_options;

// What the node is in a stream's shard, and whether the stream takes records there.
typedef struct plimsoll_role {
    // The node's term.
    uint64_t term;
    // What it is.
    plimsoll_role_kind role;
    // The node that leads, as far as it knows; 0: nobody known.
    uint32_t leader;
    // The epoch that takes records.
    uint32_t epoch;
    // The engine may begin transactions in the stream, with stamps beyond plimsoll_stream_stands_at: what it begins
    // before that nobody knows of. This does not say that the node would take a record.
    bool open;
    // The epoch comes to its end: submit what was begun in it, then plimsoll_end_of_epoch.
    bool closing;
    // When this was told the node would have taken a record of this epoch with a stamp beyond the last one: it led,
    // owed the epoch no cut, was not stopping nor handing over, and knew of no stream that has ended the epoch. It
    // promises nothing of what comes after, and says nothing of room, nor of refused records that are to come again
    // first: a submit may be refused all the same. It is not set while the epoch closes, although records of what was
    // begun before are taken then.
    bool takes_records;
} plimsoll_role;

// The end of a request. What its status does not use is 0.
typedef struct plimsoll_completion {
    // What plimsoll_submit, or whatever asked, has given.
    uint64_t request;
    // PLIMSOLL_COMMITTED: the entry's term.
    uint64_t term;
    // PLIMSOLL_COMMITTED: the entry's index, of a record in parts that of its last entry. PLIMSOLL_CONFIRMED: the
    // index to read up to.
    uint64_t index;
    // PLIMSOLL_COMMITTED: the timestamp as submitted. PLIMSOLL_BEHIND: what the stream has come to.
    // PLIMSOLL_EPOCH_CLOSED: the epoch that takes records.
    struct plimsoll_stamp stamp;
    // How it has ended.
    plimsoll_status status;
    // PLIMSOLL_NOT_LEADER: the node that leads, as far as this one knows; 0: nobody known.
    uint32_t leader;
} plimsoll_completion;

// Told of a request's end. Called by plimsoll_poll on its thread; the completion is valid until it returns. An
// exception or longjmp that leaves a callback ends the process.
typedef void (*plimsoll_completion_callback)(void *context, const struct plimsoll_completion *completion);

// Told of a watermark that has moved: up to this stamp everything is committed in every registered stream. It covers
// what was stamped in its own epoch: once it has moved on to a later one, what is left of the epoch before may be
// dead, and plimsoll_on_epoch_closed and plimsoll_stream_epoch_closed tell what lives. See
// plimsoll_completion_callback for when.
typedef void (*plimsoll_watermark_callback)(void *context, const struct plimsoll_stamp *watermark);

// Told of a role that has changed. See plimsoll_completion_callback for when.
typedef void (*plimsoll_role_callback)(void *context, const struct plimsoll_role *role);

// Told that what lives of an epoch is settled: of the records with the epoch of `last` those with its timestamp or a
// lesser one, and no other, everywhere and for ever; UINT64_MAX: all of them. Called once for each epoch, in their
// order, and before the role with a later epoch. A node tells of the last 64 epochs. See plimsoll_completion_callback
// for when.
typedef void (*plimsoll_epoch_closed_callback)(void *context, const struct plimsoll_stamp *last);

// A committed record of a stream, whole and checked.
typedef struct plimsoll_entry {
    // The term.
    uint64_t term;
    // The index: of a record in parts, that of its last entry.
    uint64_t index;
    // The index of its first entry.
    uint64_t first_index;
    // The stamp, as submitted.
    struct plimsoll_stamp stamp;
    // Who submitted it.
    uint64_t session;
    // The submit's number in the session.
    uint64_t serial;
    // The record. Valid until the callback returns.
    const uint8_t *bytes;
    // How long it is.
    size_t len;
} plimsoll_entry;

// Given the committed records of the stream, each once, in the order of its log. See plimsoll_completion_callback for
// when.
typedef void (*plimsoll_entry_callback)(void *context, const struct plimsoll_entry *entry);

// Given what a replica may replay, on the thread that calls plimsoll_replica_poll. The bytes are valid until it
// returns.
typedef void (*plimsoll_replay_callback)(void *context, uint32_t shard, const struct plimsoll_stamp *stamp, const uint8_t *bytes, size_t len);

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// The version of the library: "0.1.0". It is static, and never freed. From any thread.
const char *plimsoll_version(void);

// A few words for a status, or for a number that is none. They are static, and never freed. From any thread.
const char *plimsoll_status_text(int32_t status);

// What went wrong with this thread's last call that returned an error: what happened, where, and what to do. Success
// does not clear it. Writes at most `capacity` bytes with the NUL that ends them, and returns how long the text is
// without it: with a null buffer or a capacity of 0, how much room it takes.
size_t plimsoll_last_error(char *buffer,
                           size_t capacity);

// Starts a node in this process, of the configuration at this path: as `plimsoll node` would. On PLIMSOLL_OK `*node`
// is a handle that plimsoll_node_close ends; else nothing was changed. Blocks until the node is ready. From any
// thread. A lane that fails later stops the whole node without being asked: its streams end, and plimsoll_node_close
// says why.
plimsoll_status plimsoll_node_open(const char *config_path,
                                   struct plimsoll_node **node);

// Stops the node and frees the handle, whatever is answered; null is nothing to close. What was submitted gets its
// outcome: streams that are attached may be polled for it after this. Blocks for as long as that takes, at most a few
// seconds. PLIMSOLL_DISK_FAILED or PLIMSOLL_PANICKED if the node had stopped by itself before. From any thread, while
// no other uses the handle.
plimsoll_status plimsoll_node_close(struct plimsoll_node *node);

// Up to where everything is committed in every registered stream, as far as this node knows. It covers what was
// stamped in its own epoch: once it has moved on to a later one, what is left of the epoch before may be dead, and
// plimsoll_stream_epoch_closed and plimsoll_on_epoch_closed tell what lives. Takes no lock and makes no system call.
// Two calls one after the other may go back where an epoch has just begun: keep the largest. From any thread.
plimsoll_status plimsoll_node_watermark(const struct plimsoll_node *node,
                                        struct plimsoll_stamp *watermark);

// How far each registered stream has come, by shard, ascending; the minimum is the watermark. `*count` is how many
// there are: if that is more than `capacity`, as many as fit are written, and PLIMSOLL_TOO_SMALL answered. From any
// thread.
plimsoll_status plimsoll_node_vector(const struct plimsoll_node *node,
                                     struct plimsoll_stream_stamp *stamps,
                                     size_t capacity,
                                     size_t *count);

// Fills in what is to be set otherwise only where it should differ: all but the session, and, to connect, the cluster.
// `size_bytes` is the size of the structure in the caller's program; if the library knows another, PLIMSOLL_SIZE is
// answered. From any thread.
plimsoll_status plimsoll_stream_options_init(struct plimsoll_stream_options *options,
                                             size_t size_bytes);

// Opens a stream at a node of this process. On PLIMSOLL_OK `*stream` is a handle that plimsoll_stream_close ends; else
// nothing was changed. The node may be closed before the stream is. From any thread.
plimsoll_status plimsoll_stream_open(const struct plimsoll_node *node,
                                     const struct plimsoll_stream_options *options,
                                     struct plimsoll_stream **stream);

// Opens a stream at a node that runs on this host, through the socket that its configuration names as engine.socket.
// The same in all else as plimsoll_stream_open; `options->cluster` must be set. From any thread.
plimsoll_status plimsoll_stream_connect(const char *socket_path,
                                        const struct plimsoll_stream_options *options,
                                        struct plimsoll_stream **stream);

// Attaches again after PLIMSOLL_ENDED: the node was started again. What was outstanding stays so until plimsoll_poll
// has told its end; the stream is followed from where it was; a reservation is given up, and its bytes are gone. Does
// nothing while the stream is attached. Blocks for a second at most if the node has not let the session's place go
// yet. Answers that had come and were not polled are lost, and end as unknown. Not from a callback.
plimsoll_status plimsoll_stream_reattach(struct plimsoll_stream *stream);

// Detaches, and frees the handle; null is nothing to close. What is outstanding may be committed all the same, and
// nobody is told. What was reserved is given up. If the stream is in use PLIMSOLL_REENTERED is answered, and it is not
// closed; this holds in its callbacks, too, whatever else they were answered. Afterwards the handle is no more, and
// must not be handed in again.
plimsoll_status plimsoll_stream_close(struct plimsoll_stream *stream);

// Room for a record of `len` bytes, in the ring itself: write it at `*bytes`, then plimsoll_publish or
// plimsoll_abandon. The room is valid until then, or until the stream is closed or attached again; until then nothing
// else can be asked or polled (PLIMSOLL_RESERVED). PLIMSOLL_BUSY: the ring is full, poll and try again. Longer records
// than an entry, or than half the ring, are PLIMSOLL_SIZE: plimsoll_submit takes them. Makes no system call. Callbacks
// may call it.
plimsoll_status plimsoll_reserve(struct plimsoll_stream *stream,
                                 size_t len,
                                 uint8_t **bytes);

// Submits what was reserved. `acks` is of plimsoll_acks. On PLIMSOLL_OK `*request` names it in its completion, and the
// reservation is over; so it is on PLIMSOLL_ENDED, and nothing was submitted. Makes no system call unless the node's
// lane sleeps and must be woken. Callbacks may call it.
plimsoll_status plimsoll_publish(struct plimsoll_stream *stream,
                                 uint64_t timestamp,
                                 uint32_t epoch,
                                 uint32_t acks,
                                 uint64_t *request);

// Gives up what was reserved; nothing was submitted. Callbacks may call it.
plimsoll_status plimsoll_abandon(struct plimsoll_stream *stream);

// Copies a record of 1 byte to 64 MiB into the ring and submits it. `acks` is of plimsoll_acks; `*request` names it in
// its completion. `bytes` is read before the call returns, not after. PLIMSOLL_BUSY: the ring is full, poll and try
// again. A record that is longer than an entry goes in parts, and the call waits for room between them. Callbacks may
// call it.
plimsoll_status plimsoll_submit(struct plimsoll_stream *stream,
                                const uint8_t *bytes,
                                size_t len,
                                uint64_t timestamp,
                                uint32_t epoch,
                                uint32_t acks,
                                uint64_t *request);

// How many requests have no end that was told yet. Callbacks may call it; what the poll that calls them has in hand
// counts as told.
plimsoll_status plimsoll_outstanding(struct plimsoll_stream *stream,
                                     size_t *count);

// The serial number that the next record will have. Callbacks may call it.
plimsoll_status plimsoll_next_serial(struct plimsoll_stream *stream, uint64_t *serial);

// What was last told of the watermark, by plimsoll_poll or plimsoll_completions: up to there everything is committed
// in every registered stream. It covers what was stamped in its own epoch: once it has moved on to a later one, what
// is left of the epoch before may be dead, and plimsoll_stream_epoch_closed and plimsoll_on_epoch_closed tell what
// lives. Never goes back. Callbacks may call it.
plimsoll_status plimsoll_stream_watermark(struct plimsoll_stream *stream,
                                          struct plimsoll_stamp *watermark);

// What was last told of the ends of epochs, by plimsoll_poll or plimsoll_completions: `*found` says whether anything
// was, and `*last` is then as in plimsoll_epoch_closed_callback. Callbacks may call it.
plimsoll_status plimsoll_stream_epoch_closed(struct plimsoll_stream *stream,
                                             struct plimsoll_stamp *last,
                                             bool *found);

// Up to where the stream stands in the epoch that takes records, as was last told: what is begun is stamped beyond
// that. A timestamp of UINT64_MAX: the stream has ended that epoch, or ended for good. Zero, if nothing was told yet.
// Callbacks may call it.
plimsoll_status plimsoll_stream_stands_at(struct plimsoll_stream *stream,
                                          struct plimsoll_stamp *stamp);

// What was last told of the node's role, by plimsoll_poll or plimsoll_completions: PLIMSOLL_ROLE_DETACHED before
// anything was, PLIMSOLL_ROLE_UNTOLD if the node does not tell. Callbacks may call it.
plimsoll_status plimsoll_stream_role(struct plimsoll_stream *stream,
                                     struct plimsoll_role *role);

// Gives what has happened to the callbacks, then the committed records that have come, and sets `*count` to how much
// all that was, 0 on errors. Without plimsoll_on_completion, ends of requests are counted when they come, and kept,
// however many, until plimsoll_completions takes them. Never blocks. PLIMSOLL_ENDED: the node is gone, and everything
// was told; plimsoll_stream_reattach. That a node of another process was killed plimsoll_wait finds, however short its
// timeout: this makes no system call to ask. Not from a callback.
plimsoll_status plimsoll_poll(struct plimsoll_stream *stream,
                              size_t *count);

// Looks for the ends of requests without calling anybody: writes those that have come, oldest first, as many as fit,
// and sets `*count` to how many that were, 0 on errors. For streams without plimsoll_on_completion; what roles and
// watermarks have come is told by the next plimsoll_poll, or by plimsoll_stream_role and plimsoll_stream_watermark.
// PLIMSOLL_ENDED: as of plimsoll_poll. Never blocks. Not from a callback.
plimsoll_status plimsoll_completions(struct plimsoll_stream *stream,
                                     struct plimsoll_completion *completions,
                                     size_t capacity,
                                     size_t *count);

// Waits until there is something to poll, for at most `timeout_us`: spins for a while (see plimsoll_stream_options),
// then sleeps on a word of the ring. PLIMSOLL_OK: there is something, be it that the node is gone. PLIMSOLL_WOKEN:
// plimsoll_wake was called, now or since the last wait that was answered so; there may be something as well.
// PLIMSOLL_TIMED_OUT: neither. What is kept for plimsoll_completions or plimsoll_next_entry is something, and
// plimsoll_poll does not take it: a wait returns at once as long as it is not taken there. From the thread that uses
// the stream; not from a callback.
plimsoll_status plimsoll_wait(struct plimsoll_stream *stream,
                              uint64_t timeout_us);

// Sets who is told of requests that end; null: nobody, and plimsoll_completions gives them out. This holds for ends
// that were collected before, too, and not told nor taken. `context` is handed on as it is. One that is set in a
// callback is called from the next poll on. Callbacks may call it.
plimsoll_status plimsoll_on_completion(struct plimsoll_stream *stream,
                                       plimsoll_completion_callback callback,
                                       void *context);

// Sets who is told of watermarks; null: nobody. See plimsoll_on_completion.
plimsoll_status plimsoll_on_watermark(struct plimsoll_stream *stream,
                                      plimsoll_watermark_callback callback,
                                      void *context);

// Sets who is told of roles; null: nobody. See plimsoll_on_completion.
plimsoll_status plimsoll_on_role(struct plimsoll_stream *stream,
                                 plimsoll_role_callback callback,
                                 void *context);

// Sets who is told of epochs whose fate is settled; null: nobody. Set it before the first poll: what has been polled
// is told nobody again. See plimsoll_on_completion.
plimsoll_status plimsoll_on_epoch_closed(struct plimsoll_stream *stream,
                                         plimsoll_epoch_closed_callback callback,
                                         void *context);

// Follows the stream: its committed records from this index on (1: from the first), whoever has submitted them. Once
// per stream; PLIMSOLL_FOLLOWED if it was. A record is given once, also over plimsoll_stream_reattach. Callbacks may
// call it.
plimsoll_status plimsoll_on_apply(struct plimsoll_stream *stream,
                                  uint64_t from_index,
                                  plimsoll_entry_callback callback,
                                  void *context);

// Follows the stream as plimsoll_on_apply does, but calls nobody: plimsoll_next_entry takes the records. Callbacks may
// call it.
plimsoll_status plimsoll_follow(struct plimsoll_stream *stream,
                                uint64_t from_index);

// Takes the next committed record of a stream that plimsoll_follow follows, if one has come: `*found` says whether.
// Nothing more is asked of the node until all that has come was taken, so that who takes slowly holds nothing but its
// own reading back. The entry is valid until the next call of this, plimsoll_poll or plimsoll_completions.
// plimsoll_poll is to be called now and then: it brings the records. Never blocks. Not from a callback.
plimsoll_status plimsoll_next_entry(struct plimsoll_stream *stream,
                                    struct plimsoll_entry *entry,
                                    bool *found);

// Makes something by which other threads wake who waits in plimsoll_wait: see plimsoll_wake. On PLIMSOLL_OK `*waker`
// is a handle that plimsoll_waker_close ends, before the stream or after it. From the thread that uses the stream;
// callbacks may call it.
plimsoll_status plimsoll_stream_waker(struct plimsoll_stream *stream,
                                      struct plimsoll_waker **waker);

// Ends the wait that is under way, or else the next one, with PLIMSOLL_WOKEN: once for all calls before it. Nothing is
// lost if the thread does not wait yet, and nothing happens if its stream or replica is closed. Makes a system call
// only if the thread sleeps. From any thread, also from several at once, and from callbacks; not from signal handlers.
plimsoll_status plimsoll_wake(const struct plimsoll_waker *waker);

// Frees the handle; null is nothing to close. From any thread, when no thread is in plimsoll_wake with it, nor comes
// to it: this is not found out. Afterwards the handle is no more, and must not be handed in again.
plimsoll_status plimsoll_waker_close(struct plimsoll_waker *waker);

// Registers a stream: from now on it counts for the watermark, and takes records beyond what the registrar has come
// to. Asked in the registrar's stream, which is that of shard 0, and registers itself first: another one before it, or
// after its end, ends as PLIMSOLL_UNREGISTERED, and as PLIMSOLL_BUSY while a new leader does not know or an epoch
// comes to its end: try again. Ends as PLIMSOLL_COMMITTED. Callbacks may call it.
plimsoll_status plimsoll_register_stream(struct plimsoll_stream *registrar,
                                         uint32_t shard,
                                         uint64_t *request);

// Promises that nothing at or before this stamp will be submitted any more in this stream, so that it holds no
// watermark back. A record that is under way and is refused is given up with it: await those first. Ends as
// PLIMSOLL_COMMITTED. Callbacks may call it.
plimsoll_status plimsoll_advance(struct plimsoll_stream *stream,
                                 uint64_t timestamp,
                                 uint32_t epoch,
                                 uint64_t *request);

// Says that nothing will be submitted any more in this stream, for good. Ends as PLIMSOLL_COMMITTED. Callbacks may
// call it.
plimsoll_status plimsoll_end_of_stream(struct plimsoll_stream *stream,
                                       uint64_t *request);

// Says that all that was begun in this epoch has been submitted in this stream. It ends the epoch in all others, too:
// see `closing` of plimsoll_role. Ends as PLIMSOLL_COMMITTED. Callbacks may call it.
plimsoll_status plimsoll_end_of_epoch(struct plimsoll_stream *stream,
                                      uint32_t epoch,
                                      uint64_t *request);

// Says that what was begun in this epoch may be lost: the thread is not the one that began it, which has died. It is
// said again, each time with the epoch that a role tells is open, until one ends as PLIMSOLL_COMMITTED, and nothing is
// begun before. What others stamped after what is lost is then dead everywhere. Callbacks may call it.
plimsoll_status plimsoll_cut_epoch(struct plimsoll_stream *stream,
                                   uint32_t epoch,
                                   uint64_t *request);

// Hands the leadership of the stream's shard to another node. Ends as PLIMSOLL_ACCEPTED when that has begun; a role
// tells when it is done. Until then, an election timeout at most, nothing is taken. As PLIMSOLL_BUSY if the node was
// not heard for that long. Callbacks may call it.
plimsoll_status plimsoll_transfer(struct plimsoll_stream *stream,
                                  uint32_t to_node,
                                  uint64_t *request);

// Asks up to which index must be read to miss nothing that was acknowledged before: a majority confirms it. Ends as
// PLIMSOLL_CONFIRMED. Callbacks may call it.
plimsoll_status plimsoll_read_index(struct plimsoll_stream *stream,
                                    uint64_t *request);

// Follows all shards of a node of this process from the beginning of their logs. `session` is as of
// plimsoll_stream_options, and at no shard the same as a stream's. `bytes_max` bounds what waits to be replayed, in
// each stream, 64 bytes of each record's keeping included; one that has more is read on when the watermark has moved.
// On PLIMSOLL_OK `*replica` is a handle that plimsoll_replica_close ends. From any thread.
plimsoll_status plimsoll_replica_open(const struct plimsoll_node *node,
                                      size_t bytes_max,
                                      uint64_t session,
                                      struct plimsoll_replica **replica);

// The same at a node that runs on this host: see plimsoll_stream_connect. The shards are 0 to `shards` - 1; the shard
// of the options is not read.
plimsoll_status plimsoll_replica_connect(const char *socket_path,
                                         const struct plimsoll_stream_options *options,
                                         uint32_t shards,
                                         size_t bytes_max,
                                         struct plimsoll_replica **replica);

// Takes in what is committed and gives out what may be replayed: of every stream in its order, nothing beyond the
// watermark, and nothing that died with an epoch. Between streams there is no order: per key the last writer by stamp
// wins. `*count` is how many records were given out. Never blocks. PLIMSOLL_ENDED: the node is gone;
// plimsoll_replica_reattach. The callback may use everything but this replica.
plimsoll_status plimsoll_replica_poll(struct plimsoll_replica *replica,
                                      plimsoll_replay_callback callback,
                                      void *context,
                                      size_t *count);

// Waits until there is something to take in by plimsoll_replica_poll, for at most `timeout_us`: spins for a while,
// then sleeps until any of the node's lanes has something. What is taken in need not be anything that may be replayed
// yet. PLIMSOLL_OK: there is something, be it that the node is gone, which is told so once. PLIMSOLL_WOKEN:
// plimsoll_wake was called, now or since the last wait that was answered so; there may be something as well.
// PLIMSOLL_TIMED_OUT: neither. From the thread that uses the replica; not from its callback.
plimsoll_status plimsoll_replica_wait(struct plimsoll_replica *replica,
                                      uint64_t timeout_us);

// Makes something by which other threads wake who waits in plimsoll_replica_wait: see plimsoll_wake. On PLIMSOLL_OK
// `*waker` is a handle that plimsoll_waker_close ends, before the replica or after it. From the thread that uses the
// replica.
plimsoll_status plimsoll_replica_waker(struct plimsoll_replica *replica,
                                       struct plimsoll_waker **waker);

// Up to where everything is committed in every registered stream, in the logs as they were read here. It covers what
// was stamped in its own epoch: once it has moved on to a later one, what is left of the epoch before may be dead, and
// plimsoll_replica_poll gives out only what lives.
plimsoll_status plimsoll_replica_watermark(struct plimsoll_replica *replica,
                                           struct plimsoll_stamp *watermark);

// Attaches again after PLIMSOLL_ENDED, and goes on where it was. Does nothing while it is attached.
plimsoll_status plimsoll_replica_reattach(struct plimsoll_replica *replica);

// Detaches, and frees the handle; null is nothing to close. If it is in use PLIMSOLL_REENTERED is answered, and it is
// not closed. Afterwards the handle is no more, and must not be handed in again.
plimsoll_status plimsoll_replica_close(struct plimsoll_replica *replica);

// Reads Mako's YAML files, one after another. On PLIMSOLL_OK `*mako` is a handle that plimsoll_mako_free ends. From
// any thread.
plimsoll_status plimsoll_mako_load(const char *const *files,
                                   size_t count,
                                   struct plimsoll_mako **mako);

// Frees the handle; null is nothing to free. From any thread, while no other uses it.
void plimsoll_mako_free(struct plimsoll_mako *mako);

// How many partitions there are. From any thread.
plimsoll_status plimsoll_mako_partitions(const struct plimsoll_mako *mako, uint32_t *count);

// The name of a process's site in a partition, as a string of at most `capacity` bytes. From any thread.
plimsoll_status plimsoll_mako_site(const struct plimsoll_mako *mako,
                                   uint32_t partition,
                                   const char *process,
                                   char *name,
                                   size_t capacity);

// A process and its host: the `at`th of the `host:` map, by name. PLIMSOLL_BAD_ARGUMENT: there are no more. From any
// thread.
plimsoll_status plimsoll_mako_host(const struct plimsoll_mako *mako,
                                   size_t at,
                                   char *process,
                                   size_t process_capacity,
                                   char *host,
                                   size_t host_capacity);

// Starts the node that takes the place of a process's sites, with its log in a directory below `data_dir` that is
// called as the process. `lanes` is the cluster's, the same everywhere. On PLIMSOLL_OK `*node` is a handle that
// plimsoll_node_close ends, and `*locale` the column of the process's sites. Blocks until the node is ready. From any
// thread.
plimsoll_status plimsoll_mako_node_open(const struct plimsoll_mako *mako,
                                        const char *process,
                                        const char *data_dir,
                                        uint16_t lanes,
                                        struct plimsoll_node **node,
                                        uint32_t *locale);

#ifdef __cplusplus
} // extern "C"
#endif // __cplusplus

#endif /* PLIMSOLL_H */
