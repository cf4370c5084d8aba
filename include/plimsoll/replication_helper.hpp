// Plimsoll in the place of Mako's replication helper: the functions that the engine calls, with the same signatures.
//
// Include it in one or more source files of the engine in place of `deptran/s_main.h` or `replication_helper.h`, and
// link with `pkg-config --cflags --libs plimsoll`. C++17. All of it is inline; the state is one per process.
//
// What is different from before, because it was wrong there:
// - Every submit has an outcome. `add_log_to_nc` says at once whether this process leads the partition; what becomes of
//   a log that was taken is counted (`outcomes`), and told to who asks (`register_outcome_callback`).
// - `wait_for_submit` waits until everything that was submitted has its outcome, by commits and not by a constant.
// - `get_outstanding_logs` is what was submitted here and has no outcome yet; -1 for an unknown partition.
// - A callback's answer, `timestamp*10 + status`, is decoded although the int wraps, and it is said when it no longer
//   fits.
// - Logs of no bytes are replicated like others. A log may have 64 MiB less one byte.
// - What a callback defers (status 3) is bounded in bytes: a partition whose queue is full is not read on, its last log
//   is offered again until the engine has drained.
//
// Files: `-f` as many as needed, `-P` the process's name (default "localhost"), `-n` and `-T` of the microbenchmark.
// Others of Mako's options are accepted and passed over. The environment says what Mako's files do not:
//   PLIMSOLL_DATA_DIR  where nodes keep their logs, a directory for each process (default: plimsoll-data)
//   PLIMSOLL_LANES     lanes of each node, the same everywhere (default: 1)
//
// Threads: any function may be called from any thread, but `setup`, `setup2` and `shutdown_paxos` from one at a time.
// The callbacks of a partition are called from one thread, its worker's, and may submit.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <queue>
#include <string>
#include <tuple>
#include <vector>

#include "plimsoll/mako/replication.hpp"
#include "plimsoll/mako/requests.hpp"

/// Reads Mako's files and returns the names of this process's sites, one for each partition; empty: an error, told on
/// stderr.
inline std::vector<std::string> setup(int argc, char **argv) { return plimsoll::mako::replication().setup(argc, argv); }

/// Starts the node and a worker for each partition; locale 0 is the preferred leader. 0 on success. A node has all
/// partitions, so that `action` and `shardIndex` choose nothing here.
inline int setup2(int action = 0, int shardIndex = -1) {
    (void)action;
    (void)shardIndex;
    return plimsoll::mako::replication().start();
}

/// The process-to-host map of a YAML file; empty if it cannot be read, which is told on stderr.
inline std::map<std::string, std::string> getHosts(std::string file) { return plimsoll::mako::hosts_of(file); }

/// Submits a log, which is copied. False: this process does not lead the partition, or there is none of this number;
/// the locale that leads, as far as it is known, is written to `leader_hint`. Returns at once unless the ring is full or
/// 32,768 logs of the partition have no outcome yet: for those it waits.
inline bool add_log_to_nc(const char *log, int len, uint32_t par_id, int batch_size = 0, uint16_t *leader_hint = nullptr) {
    (void)batch_size;
    return plimsoll::mako::replication().add(log, len, par_id, true, leader_hint);
}

/// The same path without the look at who leads: the outcome says whether it was taken.
inline void submit(const char *log, int len, uint32_t par_id) {
    plimsoll::mako::replication().add(log, len, par_id, false, nullptr);
}

/// See `submit`.
inline void add_log(const char *log, int len, uint32_t par_id) { submit(log, len, par_id); }

/// See `submit`.
inline void add_log_without_queue(const char *log, int len, uint32_t par_id) { submit(log, len, par_id); }

/// Blocks until everything that was submitted to the partition here before has its outcome.
inline void wait_for_submit(uint32_t par_id) { plimsoll::mako::replication().wait_for_submit(par_id); }

/// How many logs were submitted here and have no outcome yet; -1 for an unknown partition.
inline int get_outstanding_logs(uint32_t par_id) { return plimsoll::mako::replication().outstanding(par_id); }

// A committed log is given to the callback of the role that this process has in its partition when it is applied.
// Callbacks are registered before `setup2`: a partition without any is not applied until it has one.

/// What is applied while this process leads.
inline void register_for_leader(std::function<void(const char *, int)> callback, uint32_t par_id) {
    plimsoll::mako::replication().listen(par_id, true, plimsoll::mako::Callback::simple(std::move(callback)));
}

/// What is applied while it does not.
inline void register_for_follower(std::function<void(const char *, int)> callback, uint32_t par_id) {
    plimsoll::mako::replication().listen(par_id, false, plimsoll::mako::Callback::simple(std::move(callback)));
}

/// The same, told the partition.
inline void register_for_leader_par_id(std::function<void(const char *&, int, int)> callback, uint32_t par_id) {
    plimsoll::mako::replication().listen(par_id, true, plimsoll::mako::Callback::with_partition(std::move(callback)));
}

/// The same, told the partition.
inline void register_for_follower_par_id(std::function<void(const char *&, int, int)> callback, uint32_t par_id) {
    plimsoll::mako::replication().listen(par_id, false, plimsoll::mako::Callback::with_partition(std::move(callback)));
}

/// The watermark variant: answers `timestamp*10 + status`. With status 3 the log is copied (malloc) into the queue,
/// from which the callback takes what has become safe with a later log, and frees it (free).
inline void register_for_leader_par_id_return(plimsoll::mako::WatermarkCallback callback, uint32_t par_id) {
    plimsoll::mako::replication().listen(par_id, true, plimsoll::mako::Callback::watermark(std::move(callback)));
}

/// See `register_for_leader_par_id_return`.
inline void register_for_follower_par_id_return(plimsoll::mako::WatermarkCallback callback, uint32_t par_id) {
    plimsoll::mako::replication().listen(par_id, false, plimsoll::mako::Callback::watermark(std::move(callback)));
}

/// 1: this process has come to lead all partitions; 0: it no longer does. Called from a worker's thread, never from two
/// at once, and told each change in the order in which they came. It may call any function here but `shutdown_paxos`.
inline void register_leader_election_callback(std::function<void(int)> callback) {
    plimsoll::mako::replication().listen_to_elections(std::move(callback));
}

/// The engine's epoch, which is not the Raft term.
inline int get_epoch() { return plimsoll::mako::replication().epoch(); }

/// Sets the engine's epoch; -1: one more than it was.
inline void set_epoch(int epoch = -1) { plimsoll::mako::replication().set_epoch(epoch); }

/// A no-op that marks the epoch ("no-ops:" and its last digit), into every stream.
inline void send_no_ops_to_all_workers(int epoch) { plimsoll::mako::replication().send_no_ops(epoch); }

/// See `send_no_ops_to_all_workers`.
inline void send_no_ops_for_mark(int epoch) { plimsoll::mako::replication().send_no_ops(epoch); }

/// Moves leadership to a locale, and keeps it there while that is alive. A negative number: leaves it wherever it is.
/// Called where the leader is it holds for every process, because it is written down; elsewhere for this process, when
/// it leads.
inline void set_preferred_leader(int locale) { plimsoll::mako::replication().prefer(locale); }

/// Moves leadership to locale 1, which Mako calls p1: see `set_preferred_leader`.
inline void upgrade_p1_to_leader() { set_preferred_leader(1); }

/// Waits until everything that was submitted here has its outcome, ten seconds at most.
inline void pre_shutdown_step() { plimsoll::mako::replication().drain(); }

/// Stops the node, which ends what it has taken and hands its leaderships over, then the workers. Every submit has had
/// its outcome when it returns; one that the node does not answer within ten seconds is told as unknown. 0; -1 if the
/// node had failed, which is told on stderr, or from a callback, which may not call it: nothing is stopped then.
inline int shutdown_paxos() { return plimsoll::mako::replication().stop(); }

/// Prints a partition's counters to stdout.
inline void worker_info_stats(size_t par_id) { plimsoll::mako::replication().print(static_cast<uint32_t>(par_id)); }

/// In every partition that this process leads: submits `-n` messages, and with each that is applied the next, until
/// `-T` are, or no more come because some were refused or leadership is gone; then prints how many there were in a second. Takes the place of the leader's callbacks.
inline void microbench_paxos() { plimsoll::mako::replication().microbench(); }

/// See `microbench_paxos`: there is one path.
inline void microbench_paxos_queue() { microbench_paxos(); }
