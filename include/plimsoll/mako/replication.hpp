// The process's replication: Mako's files, the node, and its partitions.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <vector>

#include "plimsoll.h"
#include "plimsoll/mako/elections.hpp"
#include "plimsoll/mako/partition.hpp"

namespace plimsoll::mako {

inline void complain(const char *what) {
    char why[512];
    plimsoll_last_error(why, sizeof why);
    std::fprintf(stderr, "plimsoll: %s: %s\n", what, why);
}

/// Mako's files, read.
class Files {
  public:
    explicit Files(const std::vector<std::string> &paths) {
        std::vector<const char *> names;
        for (const auto &path : paths) names.push_back(path.c_str());
        if (plimsoll_mako_load(names.data(), names.size(), &mako_) != PLIMSOLL_OK) complain("Mako's files");
    }
    ~Files() { plimsoll_mako_free(mako_); }
    Files(const Files &) = delete;
    Files &operator=(const Files &) = delete;

    plimsoll_mako *get() const { return mako_; }

  private:
    plimsoll_mako *mako_ = nullptr;
};

inline std::map<std::string, std::string> hosts_of(const std::string &file) {
    std::map<std::string, std::string> hosts;
    const Files files({file});
    if (files.get() == nullptr) return hosts;
    char process[256], host[256];
    for (size_t at = 0; plimsoll_mako_host(files.get(), at, process, sizeof process, host, sizeof host) == PLIMSOLL_OK; ++at) {
        hosts[process] = host;
    }
    return hosts;
}

/// See the file. One for the process: `replication()`.
class Replication {
  public:
    std::vector<std::string> setup(int argc, char **argv) {
        if (node_ != nullptr) {
            std::fprintf(stderr, "plimsoll: setup: it runs already; call shutdown_paxos first\n");
            return {};
        }
        std::vector<std::string> paths;
        process_ = "localhost";
        for (int at = 1; at + 1 < argc; ++at) {
            const std::string flag = argv[at];
            if (flag == "-f") paths.emplace_back(argv[++at]);
            else if (flag == "-P") process_ = argv[++at];
            else if (flag == "-n") bench_window_ = std::strtoull(argv[++at], nullptr, 10);
            else if (flag == "-T") bench_total_ = std::strtoull(argv[++at], nullptr, 10);
        }
        if (paths.empty()) {
            std::fprintf(stderr, "plimsoll: setup: no file; name Mako's YAML files with -f\n");
            return {};
        }
        files_ = std::make_unique<Files>(paths);
        if (files_->get() == nullptr) return {};
        uint32_t partitions = 0;
        plimsoll_mako_partitions(files_->get(), &partitions);
        std::vector<std::string> sites;
        for (uint32_t number = 0; number < partitions; ++number) {
            char site[256];
            if (plimsoll_mako_site(files_->get(), number, process_.c_str(), site, sizeof site) != PLIMSOLL_OK) {
                complain("setup");
                return {};
            }
            sites.emplace_back(site);
        }
        return sites;
    }

    int start() {
        if (node_ != nullptr || files_ == nullptr || files_->get() == nullptr) {
            std::fprintf(stderr, "plimsoll: setup2: call setup before it, once\n");
            return -1;
        }
        const char *directory = std::getenv("PLIMSOLL_DATA_DIR");
        const char *lanes = std::getenv("PLIMSOLL_LANES");
        const auto lane_count = static_cast<uint16_t>(lanes == nullptr ? 1 : std::strtoul(lanes, nullptr, 10));
        uint32_t locale = 0;
        if (plimsoll_mako_node_open(files_->get(), process_.c_str(), directory == nullptr ? "plimsoll-data" : directory, lane_count,
                                    &node_, &locale) != PLIMSOLL_OK) {
            complain("setup2");
            return -1;
        }
        shared_.locale = static_cast<int>(locale);
        shared_.callbacks = [this](uint32_t number) { return callbacks_of(number); };
        shared_.outcome_callback = [this] {
            const std::lock_guard<std::mutex> lock(listeners_mutex_);
            return on_outcome_;
        };
        shared_.on_leadership = [this](uint32_t number, bool leads) { elections_.set(number, leads); };
        uint32_t count = 0;
        plimsoll_mako_partitions(files_->get(), &count);
        elections_.begin(count);
        std::vector<std::shared_ptr<Partition>> partitions;
        for (uint32_t number = 0; number < count; ++number) {
            partitions.push_back(std::make_shared<Partition>(node_, number, shared_));
            if (!partitions.back()->is_attached()) {
                partitions.clear();
                plimsoll_node_close(node_);
                node_ = nullptr;
                return -1;
            }
        }
        {
            const std::lock_guard<std::shared_mutex> lock(partitions_mutex_);
            partitions_ = partitions;
        }
        // Only now: they call back, and callbacks are to find all partitions.
        for (const auto &partition : partitions) partition->start();
        return 0;
    }

    bool add(const char *log, int len, uint32_t number, bool only_leader, uint16_t *leader_hint) {
        const auto partition = find(number);
        if (partition == nullptr) {
            std::fprintf(stderr, "plimsoll: a log for partition %u, which there is not\n", number);
            return false;
        }
        if (partition->add(log, len, only_leader)) return true;
        if (leader_hint != nullptr) partition->leader(*leader_hint);
        return false;
    }

    void wait_for_submit(uint32_t number) {
        if (const auto partition = find(number)) partition->wait_for_submitted();
    }

    int outstanding(uint32_t number) {
        const auto partition = find(number);
        return partition == nullptr ? -1 : partition->outstanding();
    }

    Outcomes outcomes(uint32_t number) {
        const auto partition = find(number);
        return partition == nullptr ? Outcomes{} : partition->outcomes();
    }

    void listen(uint32_t number, bool leader, Callback callback) {
        auto shared = std::make_shared<const Callback>(std::move(callback));
        const std::lock_guard<std::mutex> lock(listeners_mutex_);
        auto &callbacks = callbacks_[number];
        (leader ? callbacks.leader : callbacks.follower) = std::move(shared);
    }

    void listen_to_elections(std::function<void(int)> callback) { elections_.listen(std::move(callback)); }

    void listen_to_outcomes(OutcomeCallback callback) {
        const std::lock_guard<std::mutex> lock(listeners_mutex_);
        on_outcome_ = std::move(callback);
    }

    int epoch() const { return shared_.epoch.load(); }

    void set_epoch(int epoch) {
        if (epoch < 0) shared_.epoch.fetch_add(1);
        else shared_.epoch.store(epoch);
    }

    void send_no_ops(int epoch) {
        const std::string mark = "no-ops:" + std::to_string(((epoch % 10) + 10) % 10);
        for (const auto &partition : all()) partition->add(mark.data(), static_cast<int>(mark.size()), false);
    }

    void prefer(int locale) {
        shared_.preferred.store(locale);
        for (const auto &partition : all()) partition->prefer(locale);
    }

    bool drain() {
        const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(10);
        bool all_ended = true;
        for (const auto &partition : all()) all_ended &= partition->wait(until);
        return all_ended;
    }

    /// Closes the node, which ends what it has taken, and detaches only then: every submit gets its outcome.
    int stop() {
        auto ending = all();
        for (const auto &partition : ending) {
            if (partition->is_worker()) {
                std::fprintf(stderr, "plimsoll: shutdown_paxos: it waits for the callbacks' threads; call it from none of them\n");
                return -1;
            }
        }
        for (const auto &partition : ending) partition->expect_end();
        // The workers go on: what is committed meanwhile is told and applied, and so is the loss of leadership.
        const plimsoll_status status = node_ == nullptr ? PLIMSOLL_OK : plimsoll_node_close(node_);
        if (status != PLIMSOLL_OK) complain("shutdown_paxos");
        node_ = nullptr;
        const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(10);
        for (const auto &partition : ending) partition->finish(until);
        {
            const std::lock_guard<std::shared_mutex> lock(partitions_mutex_);
            partitions_.clear();
        }
        files_.reset();
        return status == PLIMSOLL_OK ? 0 : -1;
    }

    void print(uint32_t number) {
        const auto partition = find(number);
        if (partition == nullptr) return;
        const Outcomes is = partition->outcomes();
        std::printf("partition %u: %s, submitted %llu, committed %llu, rejected %llu, unknown %llu, applied %llu, deferred %llu bytes\n",
                    number, partition->leads() ? "leads" : "follows", static_cast<unsigned long long>(is.submitted),
                    static_cast<unsigned long long>(is.committed), static_cast<unsigned long long>(is.rejected),
                    static_cast<unsigned long long>(is.unknown), static_cast<unsigned long long>(is.applied),
                    static_cast<unsigned long long>(is.deferred_bytes));
    }

    /// See `microbench_paxos`.
    void microbench() {
        struct Run {
            std::shared_ptr<Partition> partition;
            uint64_t turn = 0;
            std::atomic<uint64_t> submitted{0}, applied{0};
            std::atomic<bool> is_over{false};
        };
        const auto begun = std::chrono::steady_clock::now();
        // Not the messages of another run, which may be applied only now.
        std::string message = "microbench " + std::to_string(begun.time_since_epoch().count());
        message.resize(4096, 'm');
        const uint64_t total = bench_total_;
        const auto partitions = all();
        std::vector<std::shared_ptr<Run>> runs;
        for (uint32_t number = 0; number < partitions.size(); ++number) {
            auto run = std::make_shared<Run>();
            run->partition = partitions[number];
            run->turn = run->partition->turn();
            if (!Partition::leads_in(run->turn)) continue;
            const auto next = [total, message](Run &of) {
                if (of.is_over || of.submitted.fetch_add(1) >= total) return;
                of.partition->add(message.data(), static_cast<int>(message.size()), true);
            };
            // It stays registered, and holds nothing: what is committed late is no log of the engine's.
            listen(number, true, Callback::simple([weak = std::weak_ptr<Run>(run), message, next](const char *log, int len) {
                       const auto of = weak.lock();
                       if (of == nullptr || message.compare(0, std::string::npos, log, static_cast<size_t>(len)) != 0) return;
                       ++of->applied;
                       next(*of);
                   }));
            for (uint64_t at = 0; at < std::min(bench_window_, total); ++at) next(*run);
            runs.push_back(std::move(run));
        }
        // It ends as well with the leadership, and when all that was taken is applied: then no next one comes.
        const auto is_over = [total](const Run &run) {
            return run.applied >= total || run.partition->turn() != run.turn || run.partition->has_applied_all();
        };
        uint64_t applied = 0;
        for (const auto &run : runs) {
            while (!is_over(*run)) std::this_thread::sleep_for(std::chrono::milliseconds(1));
            run->is_over = true;
            applied += run->applied;
        }
        const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
        std::printf("microbench: %llu messages of %zu bytes in %.3f s, %.0f a second, in %zu partitions\n",
                    static_cast<unsigned long long>(applied), message.size(), seconds, static_cast<double>(applied) / seconds,
                    runs.size());
    }

  private:
    std::shared_ptr<Partition> find(uint32_t number) {
        const std::shared_lock<std::shared_mutex> lock(partitions_mutex_);
        return number < partitions_.size() ? partitions_[number] : nullptr;
    }

    std::vector<std::shared_ptr<Partition>> all() {
        const std::shared_lock<std::shared_mutex> lock(partitions_mutex_);
        return partitions_;
    }

    Callbacks callbacks_of(uint32_t number) {
        const std::lock_guard<std::mutex> lock(listeners_mutex_);
        const auto found = callbacks_.find(number);
        return found == callbacks_.end() ? Callbacks{} : found->second;
    }

    std::unique_ptr<Files> files_;
    std::string process_;
    uint64_t bench_window_ = 64, bench_total_ = 100'000;
    plimsoll_node *node_ = nullptr;
    Shared shared_;
    std::mutex listeners_mutex_;
    std::map<uint32_t, Callbacks> callbacks_;
    Elections elections_;
    OutcomeCallback on_outcome_;
    // The last, and so the first to end: their workers use the others.
    std::shared_mutex partitions_mutex_;
    std::vector<std::shared_ptr<Partition>> partitions_;
};

inline Replication &replication() {
    static Replication instance;
    return instance;
}

/// What has become of a partition's submits here.
inline Outcomes outcomes(uint32_t par_id) { return replication().outcomes(par_id); }

/// Every submit's outcome is told to this, from the thread that comes upon it.
inline void register_outcome_callback(OutcomeCallback callback) { replication().listen_to_outcomes(std::move(callback)); }

}  // namespace plimsoll::mako
