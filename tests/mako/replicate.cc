// One process of the drop-in's test: replicates as Mako does, and writes down what was applied.
//
//   replicate OPTIONS.. OUT
//
// One of three. The leader, at locale 0, submits 100 logs to each partition, one every 5 ms, and hands over to locale
// 1, which ends each partition with a log of no bytes. Everyone writes "partition slot length checksum role" of each log to OUT.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "plimsoll/replication_helper.hpp"

namespace {

constexpr int records = 100;
constexpr int record_bytes = 3000;
constexpr auto interval = std::chrono::milliseconds(5);
constexpr auto patience = std::chrono::seconds(60);

void fail(const char *what) {
    std::fprintf(stderr, "replicate: %s\n", what);
    std::exit(1);
}

/// FNV-1a.
uint64_t checksum(const char *bytes, int len) {
    uint64_t sum = 14695981039346656037ULL;
    for (int at = 0; at < len; ++at) sum = (sum ^ static_cast<unsigned char>(bytes[at])) * 1099511628211ULL;
    return sum;
}

/// Filler, and the trailer of a log buffer: timestamp and start.
std::string record(uint32_t partition, uint32_t number) {
    std::string log;
    for (uint32_t at = 0; at < record_bytes - 8; ++at) log.push_back(static_cast<char>(partition * 31 + number * 7 + at));
    for (int shift = 0; shift < 32; shift += 8) log.push_back(static_cast<char>(number >> shift));
    return log + std::string(4, '\0');
}

}  // namespace

int main(int argc, char **argv) {
    if (argc < 3) fail("usage: replicate OPTIONS.. OUT");
    const std::string out_path = argv[argc - 1];
    const std::vector<std::string> sites = setup(argc - 1, argv);
    if (sites.empty()) fail("setup");
    const auto partitions = static_cast<uint32_t>(sites.size());

    std::ofstream out(out_path);
    std::mutex mutex;
    std::atomic<uint32_t> ended{0};
    std::atomic<bool> leads{false};
    std::vector<std::atomic<uint32_t>> seen(partitions);
    for (uint32_t number = 0; number < partitions; ++number) {
        const auto apply = [&, number](char role) {
            // Every third log of a follower is deferred once, and taken out of the queue with the next one.
            return [&, number, role](const char *&log, int len, int par_id, int slot, plimsoll::mako::Unreplayed &queue) {
                if (par_id != static_cast<int>(number)) fail("a log of another partition");
                const auto write = [&](int at, const char *bytes, int length) {
                    const std::lock_guard<std::mutex> lock(mutex);
                    out << par_id << ' ' << at << ' ' << length << ' ' << checksum(bytes, length) << ' ' << role << '\n';
                };
                for (; !queue.empty(); queue.pop()) {
                    const auto &[timestamp, at, status, length, bytes] = queue.front();
                    if (status != 3 || timestamp != static_cast<int>(seen[number])) fail("a deferred log has changed");
                    write(at, bytes, length);
                    std::free(const_cast<char *>(bytes));
                }
                if (len == 0) {
                    write(slot, log, len);
                    ++ended;
                    return 2;
                }
                const uint32_t timestamp = *plimsoll::mako::trailer_timestamp(log, len);
                seen[number] = timestamp;
                const bool defer = role == 'f' && timestamp % 3 == 0;
                if (!defer) write(slot, log, len);
                return static_cast<int>(timestamp * 10 + (defer ? 3u : 0u));
            };
        };
        register_for_leader_par_id_return(apply('l'), number);
        register_for_follower_par_id_return(apply('f'), number);
    }
    register_leader_election_callback([&](int gained) { leads = gained == 1; });
    if (setup2() != 0) fail("setup2");
    if (get_outstanding_logs(partitions) != -1) fail("there is no such partition");

    const auto until = std::chrono::steady_clock::now() + patience;
    bool submitted = false;
    uint32_t ends = 0;
    while (ended < partitions) {
        if (std::chrono::steady_clock::now() > until) fail("no end in time");
        // Whoever leads at first hands over to locale 0, the preferred one; and that in the end to locale 1, which ends
        // the streams.
        if (leads && !submitted && sites[0].rfind("s1", 0) == 0) {
            for (uint32_t at = 1; at <= records; ++at) {
                for (uint32_t number = 0; number < partitions; ++number) {
                    const std::string log = record(number, at);
                    while (!add_log_to_nc(log.data(), static_cast<int>(log.size()), number)) {
                        if (std::chrono::steady_clock::now() > until) fail("a log was not taken");
                        std::this_thread::sleep_for(interval);
                    }
                }
                std::this_thread::sleep_for(interval);
            }
            for (uint32_t number = 0; number < partitions; ++number) {
                wait_for_submit(number);
                const plimsoll::mako::Outcomes is = plimsoll::mako::outcomes(number);
                if (is.committed != records || is.rejected + is.unknown != 0) fail("not all were committed");
                worker_info_stats(number);
            }
            upgrade_p1_to_leader();
            submitted = true;
        }
        const bool has_all = std::all_of(seen.begin(), seen.end(), [](const auto &last) { return last == records; });
        if (leads && has_all && sites[0].rfind("s2", 0) == 0) {
            // One that is not taken, because leadership has just gone, is submitted when it is back.
            while (ends < partitions && add_log_to_nc("", 0, ends)) ++ends;
        }
        std::this_thread::sleep_for(interval);
    }
    out.flush();
    std::puts("done");
    std::fflush(stdout);
    // The others may not have come to their ends yet, and need this process for a quorum: the runner ends the input.
    while (std::getchar() != EOF) {
    }
    pre_shutdown_step();
    return shutdown_paxos();
}
