// Outcomes are told by the number of the submit that they are of, and every submit has one: a node that stops refuses what comes at
// once, while what it took before is still on its way to the disk.
//
//   order close|shutdown|numbers FILE
//
// Submits without a pause to the one process that FILE has, and stops the node meanwhile: `close` under a partition, `shutdown` as
// the engine does. `numbers` does not stop it: what is counted, what is waited for, and who ends. PLIMSOLL_DATA_DIR says where.
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <future>
#include <map>
#include <vector>

#include "plimsoll/replication_helper.hpp"

using namespace plimsoll::mako;

namespace {

/// The node is stopped when so many have been committed.
constexpr uint64_t enough = 500;

/// So many are under way, which is within the bounds beyond which a node refuses some.
constexpr uint64_t window = 256;

/// What was told of each submit.
class Told {
  public:
    void take(uint64_t number, plimsoll_status status) {
        const std::lock_guard<std::mutex> lock(mutex_);
        ++times_[number];
        status_[number] = status;
        if (status == PLIMSOLL_COMMITTED) ++committed_;
        news_.notify_all();
    }

    void await_some() {
        std::unique_lock<std::mutex> lock(mutex_);
        news_.wait(lock, [this] { return committed_ >= enough; });
    }

    void await_all(uint64_t submitted) {
        std::unique_lock<std::mutex> lock(mutex_);
        news_.wait(lock, [&] { return times_.size() == submitted; });
    }

    /// Until no more than the window have no outcome.
    void await_room(uint64_t submitted) {
        std::unique_lock<std::mutex> lock(mutex_);
        news_.wait(lock, [&] { return times_.size() + window >= submitted; });
    }

    /// 0: each of them has its own outcome, and once one is refused so are all after it.
    int judge(uint64_t submitted) {
        const std::lock_guard<std::mutex> lock(mutex_);
        uint64_t refused = 0, inverted = 0, untold = 0, strange = 0;
        for (uint64_t number = 1; number <= submitted; ++number) untold += times_.count(number) == 0 ? 1 : 0;
        for (const auto &[number, times] : times_) strange += times != 1 || number < 1 || number > submitted ? 1 : 0;
        for (const auto &[number, status] : status_) {
            if (status == PLIMSOLL_COMMITTED) inverted += refused != 0 ? 1 : 0;
            else if (refused == 0) refused = number;
        }
        std::printf("%" PRIu64 " submitted, %" PRIu64 " committed, first refused %" PRIu64 ", %" PRIu64
                    " told as committed after it, %" PRIu64 " not told, %" PRIu64 " told twice or of no submit\n",
                    submitted, committed_, refused, inverted, untold, strange);
        return inverted + untold + strange == 0 ? 0 : 1;
    }

  private:
    std::mutex mutex_;
    std::map<uint64_t, int> times_;
    std::map<uint64_t, plimsoll_status> status_;
    std::condition_variable news_;
    uint64_t committed_ = 0;
};

int close_under_a_partition(const char *file, Told &told) {
    const Files files({file});
    if (files.get() == nullptr) return 2;
    plimsoll_node *node = nullptr;
    uint32_t locale = 0;
    if (plimsoll_mako_node_open(files.get(), "localhost", std::getenv("PLIMSOLL_DATA_DIR"), 1, &node, &locale) != PLIMSOLL_OK) {
        complain("the node");
        return 2;
    }
    const OutcomeCallback note = [&](uint32_t, uint64_t number, plimsoll_status status) { told.take(number, status); };
    Shared shared;
    shared.on_leadership = [](uint32_t, bool) {};
    shared.callbacks = [](uint32_t) { return Callbacks{}; };
    shared.outcome_callback = [&] { return note; };
    uint64_t submitted = 0;
    {
        Partition partition(node, 0, shared);
        if (!partition.is_attached()) return 2;
        partition.start();
        while (!partition.leads()) std::this_thread::yield();
        std::thread closer([&] {
            told.await_some();
            plimsoll_node_close(node);
        });
        while (partition.add("a log", 5, false)) {
            ++submitted;
            told.await_room(submitted);
        }
        closer.join();
        if (!partition.wait(std::chrono::steady_clock::now() + std::chrono::seconds(5))) return 3;
    }
    return told.judge(submitted);
}

int shut_down(const char *file, Told &told) {
    std::string program = "order", flag = "-f", name = file;
    char *arguments[] = {program.data(), flag.data(), name.data()};
    if (setup(3, arguments).size() != 3) return 2;
    std::atomic<int> role{-1};
    std::vector<int> roles;
    register_leader_election_callback([&](int gained) {
        // Refused, and not waited for: this is a worker.
        if (gained == 0 && shutdown_paxos() != -1) std::abort();
        roles.push_back(gained);
        role.store(gained);
    });
    register_outcome_callback([&](uint32_t partition, uint64_t number, plimsoll_status status) {
        if (partition == 1) told.take(number, status);
    });
    for (uint32_t number = 0; number < 3; ++number) register_for_leader([](const char *, int) {}, number);
    if (setup2() != 0) return 2;
    while (role.load() != 1) std::this_thread::yield();
    uint64_t submitted = 0;
    std::thread submitter([&] {
        while (replication().add("a log", 5, 1, false, nullptr)) {
            ++submitted;
            told.await_room(submitted);
        }
    });
    told.await_some();
    const int stopped = shutdown_paxos();
    submitter.join();
    if (stopped != 0 || get_outstanding_logs(1) != -1) return 4;
    if (roles != std::vector<int>{1, 0}) return 5;
    return told.judge(submitted);
}

/// Runs the node as the engine would, and does something when it leads all partitions.
int lead(const char *file, const char *window, const char *total, const std::function<int()> &then) {
    std::string arguments[] = {"order", "-f", file, "-n", window, "-T", total};
    std::vector<char *> argv;
    for (auto &argument : arguments) argv.push_back(argument.data());
    if (setup(static_cast<int>(argv.size()), argv.data()).size() != 3) return 2;
    // Callbacks find all partitions, also while setup2 has not returned, and while an earlier life's log is applied.
    std::atomic<bool> has_missed{false};
    const auto look = [&] { has_missed = has_missed || get_outstanding_logs(0) < 0 || get_outstanding_logs(2) < 0; };
    for (uint32_t number = 0; number < 3; ++number) register_for_leader([&](const char *, int) { look(); }, number);
    for (uint32_t number = 0; number < 3; ++number) register_for_follower([&](const char *, int) { look(); }, number);
    std::promise<void> leads;
    register_leader_election_callback([&](int gained) {
        look();
        if (gained == 1) leads.set_value();
    });
    if (setup2() != 0) return 2;
    leads.get_future().wait();
    const int wrong = then();
    if (shutdown_paxos() != 0) return 4;
    return has_missed ? 6 : wrong;
}

int count_and_wait(Told &told, std::atomic<bool> &goes_on, std::atomic<uint64_t> &submitted) {
    // A preference is none of the engine's submits. The worker is held by the log after it.
    std::promise<void> is_held, is_let_go;
    std::atomic<bool> is_first{true};
    const std::shared_future<void> let_go = is_let_go.get_future().share();
    register_for_leader([&, let_go](const char *, int) {
        if (is_first.exchange(false)) is_held.set_value();
        let_go.wait();
    }, 1);
    set_preferred_leader(0);
    ++submitted;
    if (!add_log_to_nc("a log", 5, 1)) return 10;
    wait_for_submit(1);
    is_held.get_future().wait();
    const Outcomes is = outcomes(1), untouched = outcomes(2);
    if (is.submitted != 1 || is.committed != 1 || is.rejected + is.unknown != 0 || untouched.submitted != 0) return 11;

    // What is submitted for every one that ends is not waited for: it would be for ever.
    goes_on = true;
    ++submitted;
    if (!add_log_to_nc("a log", 5, 1)) return 12;
    wait_for_submit(1);
    goes_on = false;

    // More than a node lets wait: none is refused, and no more than allowed are open though the worker takes no outcome.
    for (size_t at = 0; at < 3 * open_max; ++at) {
        ++submitted;
        if (!add_log_to_nc("a log", 5, 1)) return 13;
        const Outcomes now = outcomes(1);
        if (now.submitted - now.committed > open_max) return 14;
    }
    wait_for_submit(1);
    is_let_go.set_value();
    told.await_all(submitted);
    if (outcomes(1).committed != submitted || get_outstanding_logs(1) != 0) return 15;
    // Until the worker has left what is here.
    while (outcomes(1).applied < submitted) std::this_thread::yield();
    register_for_leader([](const char *, int) {}, 1);

    // No message: none that is applied, so that there is nothing to wait for.
    microbench_paxos();
    return outcomes(0).submitted == 0 ? told.judge(submitted) : 16;
}

int measure() {
    microbench_paxos();
    wait_for_submit(0);
    return outcomes(0).submitted == 100 && outcomes(0).committed == 100 ? 0 : 20;
}

int numbers(const char *file, Told &told) {
    std::atomic<bool> goes_on{false};
    std::atomic<uint64_t> submitted{0};
    register_outcome_callback([&](uint32_t partition, uint64_t number, plimsoll_status status) {
        if (partition != 1) return;
        told.take(number, status);
        if (!goes_on) return;
        ++submitted;
        if (!add_log_to_nc("a log", 5, 1)) std::abort();
    });
    const int wrong = lead(file, "0", "100", [&] { return count_and_wait(told, goes_on, submitted); });
    register_outcome_callback(nullptr);
    return wrong != 0 ? wrong : lead(file, "8", "100", measure);
}

}  // namespace

int main(int argc, char **argv) {
    if (argc != 3 || std::getenv("PLIMSOLL_DATA_DIR") == nullptr) return 2;
    Told told;
    if (std::strcmp(argv[1], "numbers") == 0) return numbers(argv[2], told);
    return std::strcmp(argv[1], "close") == 0 ? close_under_a_partition(argv[2], told) : shut_down(argv[2], told);
}
