// One partition: what is submitted to it from here, and its worker, which applies what is committed.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <iterator>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "plimsoll.h"
#include "plimsoll/mako/callback.hpp"
#include "plimsoll/mako/encoding.hpp"

namespace plimsoll::mako {

/// The longest log: a byte beside it says that it is one.
constexpr int log_bytes_max = (64 << 20) - 1;

/// The most that one partition defers. One log is always taken.
constexpr size_t deferred_bytes_max = size_t{256} << 20;

/// So many submits of a partition are under way at once, and who submits more waits: a node refuses some when there
/// are twice as many, and a refused one between others would be a gap in the partition's log.
constexpr size_t open_max = 32'768;

/// From so many on who submits takes outcomes, too, so that they do not pile up while the worker is in a callback.
constexpr size_t open_taken_from = 4'096;

/// How long who has come to lead keeps that at least.
constexpr auto settling = std::chrono::milliseconds(250);

/// How long a worker whose node is gone looks for the outcomes that are left. They are there already.
constexpr auto leaving = std::chrono::seconds(5);

/// What has become of a partition's submits.
struct Outcomes {
    uint64_t submitted = 0;
    uint64_t committed = 0;
    /// Not taken, and not in the log: this process did not lead, some bound was met, or the node was stopping.
    uint64_t rejected = 0;
    /// Leadership was lost before the commit, or the node did not say: it may be in the log or not.
    uint64_t unknown = 0;
    uint64_t applied = 0;
    uint64_t deferred_bytes = 0;
    /// Answers of callbacks that did not fit an int.
    uint64_t wrapped = 0;
};

/// Told of every submit's end: partition, the number of the submit in it (from 1, as they were submitted), and how.
/// They end in another order: what is refused is answered at once, while what was taken before waits for its commit.
using OutcomeCallback = std::function<void(uint32_t, uint64_t, plimsoll_status)>;

/// What all partitions share.
struct Shared {
    std::function<void(uint32_t partition, bool leads)> on_leadership;
    std::function<OutcomeCallback()> outcome_callback;
    std::function<Callbacks(uint32_t partition)> callbacks;
    std::atomic<int> preferred{0};
    std::atomic<int> epoch{0};
    int locale = 0;
};

/// See the file.
class Partition {
  public:
    Partition(plimsoll_node *node, uint32_t number, Shared &shared) : number_(number), shared_(shared) {
        submits_ = attach(node, 1);
        applies_ = attach(node, 2);
    }

    /// What has no outcome yet is told as unknown: see `finish`.
    ~Partition() {
        finish(std::chrono::steady_clock::now());
        plimsoll_stream_close(submits_);
        plimsoll_stream_close(applies_);
        for (; !unreplayed_.empty(); unreplayed_.pop()) std::free(const_cast<char *>(std::get<4>(unreplayed_.front())));
    }

    Partition(const Partition &) = delete;
    Partition &operator=(const Partition &) = delete;

    /// Starts the worker, which may call back at once. Once, and only if it is attached.
    void start() { worker_ = std::thread([this] { run(); }); }

    bool is_attached() const { return submits_ != nullptr && applies_ != nullptr; }

    /// Whether this is called by one of its callbacks that its worker runs.
    bool is_worker() const { return worker_id_.load() == std::this_thread::get_id(); }

    /// The node is about to be closed: its end is none to complain of.
    void expect_end() { is_ending_.store(true, std::memory_order_release); }

    /// Ends the worker and waits for all outcomes, which come at once when the node has been closed; what has none by
    /// then is told as unknown. Not from the worker. Waits besides for the callback that the worker is in.
    void finish(std::chrono::steady_clock::time_point until) {
        expect_end();
        stop_.store(true, std::memory_order_release);
        if (worker_.joinable()) worker_.join();
        if (wait(until)) return;
        Ended ended;
        {
            const std::lock_guard<std::mutex> lock(submit_mutex_);
            give_up(ended);
        }
        tell(ended);
    }

    bool leads() const { return leads_in(turn()); }

    /// Grows by one whenever this process comes to lead, and whenever it no longer does.
    uint64_t turn() const { return turn_.load(std::memory_order_acquire); }
    static bool leads_in(uint64_t turn) { return turn % 2 == 1; }

    /// The locale that leads, if it is known.
    bool leader(uint16_t &locale) const {
        const uint32_t node = leader_.load(std::memory_order_acquire);
        if (node != 0) locale = static_cast<uint16_t>(node - 1);
        return node != 0;
    }

    /// False: nothing was submitted. Room is waited for, in the ring and among what is under way.
    bool add(const char *log, int len, bool only_leader, char kind = is_log) {
        if (len < 0 || len > log_bytes_max) {
            std::fprintf(stderr, "plimsoll: a log of %d bytes for partition %u: 0 to %d are allowed\n", len, number_, log_bytes_max);
            return false;
        }
        for (;;) {
            if (only_leader && !leads()) return false;
            Ended ended;
            bool taken = false, has_failed = false;
            {
                const std::lock_guard<std::mutex> lock(submit_mutex_);
                if (open_.size() >= open_taken_from && !is_telling_) take_ended(ended);
                plimsoll_status status = PLIMSOLL_BUSY;
                if (open_.size() < open_max) status = put(log, static_cast<size_t>(len), kind);
                taken = status == PLIMSOLL_OK;
                has_failed = !taken && status != PLIMSOLL_BUSY;
                if (has_failed) complain("a log was not submitted");
                if (!taken) take_ended(ended);
            }
            tell(ended);
            if (taken || has_failed) return taken;
            std::this_thread::yield();
        }
    }

    /// Writes down for every process that this locale is to lead. Nothing happens where this one does not lead.
    void prefer(int locale) {
        const std::string text = std::to_string(locale);
        add(text.data(), static_cast<int>(text.size()), true, is_preference);
    }

    /// What was submitted and has no outcome.
    int outstanding() {
        tell_ended();
        const std::lock_guard<std::mutex> lock(submit_mutex_);
        return static_cast<int>(outcomes_.submitted - outcomes_.committed - outcomes_.rejected - outcomes_.unknown);
    }

    /// Whether all that was submitted has its outcome, and what is committed of it is applied, its callback included.
    bool has_applied_all() {
        tell_ended();
        const std::lock_guard<std::mutex> lock(submit_mutex_);
        return open_.empty() && applied_index_.load(std::memory_order_acquire) >= committed_index_;
    }

    /// Waits for the outcomes of what has been submitted by now, whatever else is submitted meanwhile.
    void wait_for_submitted() {
        const uint64_t last = outcomes().submitted;
        while (!has_ended_up_to(last)) std::this_thread::yield();
    }

    /// Waits for all outcomes; whether they came in time.
    bool wait(std::chrono::steady_clock::time_point until) {
        while (outstanding() > 0) {
            if (std::chrono::steady_clock::now() >= until) return false;
            std::this_thread::yield();
        }
        return true;
    }

    Outcomes outcomes() {
        const std::lock_guard<std::mutex> lock(submit_mutex_);
        Outcomes now = outcomes_;
        now.applied = applied_.load();
        now.deferred_bytes = deferred_bytes_.load();
        now.wrapped = wrapped_.load();
        return now;
    }

  private:
    using Ended = std::vector<std::pair<uint64_t, plimsoll_status>>;

    /// A submit: what the ring calls it, and its number here, or `not_told`.
    struct Open {
        uint64_t request;
        uint64_t number;
        bool has_ended;
    };

    plimsoll_stream *attach(plimsoll_node *node, uint64_t which) {
        plimsoll_stream_options options;
        plimsoll_stream_options_init(&options, sizeof options);
        options.shard = number_;
        options.session = session(which);
        options.submit_ring_bytes = size_t{16} << 20;
        plimsoll_stream *stream = nullptr;
        if (plimsoll_stream_open(node, &options, &stream) != PLIMSOLL_OK) complain("cannot attach");
        return stream;
    }

    /// Another one in every life of this process: serial numbers begin again.
    uint64_t session(uint64_t which) const {
        const auto now = std::chrono::system_clock::now().time_since_epoch();
        const auto life = static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(now).count());
        return (life << 8) | (static_cast<uint64_t>(shared_.locale) << 4) | which;
    }

    /// Writes bytes and the one that says what they are into the ring.
    plimsoll_status put(const char *log, size_t len, char kind) {
        uint64_t request = 0;
        uint8_t *room = nullptr;
        plimsoll_status status = plimsoll_reserve(submits_, len + 1, &room);
        if (status == PLIMSOLL_OK) {
            if (len > 0) std::memcpy(room, log, len);
            room[len] = static_cast<uint8_t>(kind);
            status = plimsoll_publish(submits_, 0, 0, PLIMSOLL_ACKS_QUORUM, &request);
        } else if (status == PLIMSOLL_SIZE) {
            // Longer than an entry: it goes in parts, from a copy that has the byte.
            std::vector<uint8_t> whole(log, log + len);
            whole.push_back(static_cast<uint8_t>(kind));
            status = plimsoll_submit(submits_, whole.data(), whole.size(), 0, 0, PLIMSOLL_ACKS_QUORUM, &request);
        }
        if (status == PLIMSOLL_OK) open_.push_back({request, kind == is_log ? ++outcomes_.submitted : not_told, false});
        return status;
    }

    bool has_ended_up_to(uint64_t last) {
        tell_ended();
        const std::lock_guard<std::mutex> lock(submit_mutex_);
        const auto is_awaited = [](const Open &open) { return open.number != not_told && !open.has_ended; };
        const auto first = std::find_if(open_.begin(), open_.end(), is_awaited);
        return first == open_.end() || first->number > last;
    }

    /// Takes outcomes out of the ring. With the mutex.
    void take_ended(Ended &ended) {
        plimsoll_completion completions[64];
        size_t count = 0;
        plimsoll_status status = PLIMSOLL_OK;
        do {
            status = plimsoll_completions(submits_, completions, std::size(completions), &count);
            for (size_t at = 0; at < count; ++at) {
                committed_index_ = std::max(committed_index_, completions[at].index);
                end(completions[at].request, completions[at].status, ended);
            }
        } while (count == std::size(completions));
        // Nobody is there any more who could answer. After the first of the two everything has been told already.
        if (status == PLIMSOLL_ENDED || status == PLIMSOLL_PANICKED) give_up(ended);
    }

    /// One has ended, in whatever order they do. With the mutex.
    void end(uint64_t request, plimsoll_status status, Ended &ended) {
        const auto is_before = [](const Open &open, uint64_t wanted) { return open.request < wanted; };
        const auto found = std::lower_bound(open_.begin(), open_.end(), request, is_before);
        if (found == open_.end() || found->request != request || found->has_ended) return;
        found->has_ended = true;
        count_end(found->number, status, ended);
        while (!open_.empty() && open_.front().has_ended) open_.pop_front();
    }

    /// All that is open ends without a word of the node's. With the mutex.
    void give_up(Ended &ended) {
        for (const Open &open : open_) {
            if (!open.has_ended) count_end(open.number, PLIMSOLL_UNKNOWN, ended);
        }
        open_.clear();
    }

    void count_end(uint64_t number, plimsoll_status status, Ended &ended) {
        if (number == not_told) return;
        switch (status) {
            case PLIMSOLL_COMMITTED: ++outcomes_.committed; break;
            case PLIMSOLL_UNKNOWN: ++outcomes_.unknown; break;
            default: ++outcomes_.rejected;
        }
        ended.emplace_back(number, status);
    }

    void tell_ended() {
        Ended ended;
        {
            const std::lock_guard<std::mutex> lock(submit_mutex_);
            take_ended(ended);
        }
        tell(ended);
    }

    /// Without the mutex: the callback may submit. What that comes upon is told after it, by the loop that called it:
    /// otherwise callbacks that submit would be called by one another, ever deeper.
    void tell(const Ended &ended) {
        for (const auto &[number, status] : ended) untold_.emplace_back(number_, number, status);
        if (is_telling_ || untold_.empty()) return;
        is_telling_ = true;
        const std::unique_ptr<bool, void (*)(bool *)> until_the_end(&is_telling_, [](bool *is_telling) { *is_telling = false; });
        const OutcomeCallback callback = shared_.outcome_callback();
        while (!untold_.empty()) {
            const auto [partition, number, status] = untold_.front();
            untold_.pop_front();
            if (callback) callback(partition, number, status);
        }
    }

    void run() {
        worker_id_.store(std::this_thread::get_id());
        plimsoll_on_role(applies_, &Partition::on_role, this);
        // A transfer's end would lie in the stream otherwise until somebody takes it, and no wait would wait any more.
        plimsoll_on_completion(applies_, [](void *, const plimsoll_completion *) {}, nullptr);
        plimsoll_follow(applies_, 1);
        while (!stop_.load(std::memory_order_acquire)) {
            size_t events = 0;
            bool applied = false;
            if (plimsoll_poll(applies_, &events) != PLIMSOLL_OK || !apply_some(applied)) {
                if (!is_ending_.load(std::memory_order_acquire)) complain("its worker stops, and nothing is applied any more");
                break;
            }
            tell_ended();
            move_leadership();
            // Short, because outcomes come by the other ring.
            if (events == 0 && !applied) plimsoll_wait(applies_, 200);
        }
        set_role(false, 0);
        // The node is gone, and nobody else may ask for the outcomes that it has left.
        if (!stop_.load(std::memory_order_acquire)) wait(std::chrono::steady_clock::now() + leaving);
    }

    static void on_role(void *context, const plimsoll_role *role) {
        auto *partition = static_cast<Partition *>(context);
        partition->set_role(role->role == PLIMSOLL_ROLE_LEADER, role->leader);
    }

    void set_role(bool leads, uint32_t leader) {
        leader_.store(leader, std::memory_order_release);
        if (this->leads() != leads) {
            turn_.fetch_add(1, std::memory_order_acq_rel);
            // Who has just come to lead may have been preferred in what it has not applied yet.
            next_move_ = std::chrono::steady_clock::now() + settling;
            move_pause_ = std::chrono::milliseconds(100);
            shared_.on_leadership(number_, leads);
        }
    }

    /// Hands the partition to the preferred locale, again and again but ever more seldom: it may be dead.
    void move_leadership() {
        const int preferred = shared_.preferred.load();
        const auto now = std::chrono::steady_clock::now();
        if (preferred < 0 || preferred == shared_.locale || !leads() || now < next_move_) return;
        if (preferred != moved_to_) {
            moved_to_ = preferred;
            move_pause_ = std::chrono::milliseconds(100);
        }
        uint64_t request = 0;
        plimsoll_transfer(applies_, static_cast<uint32_t>(preferred) + 1, &request);
        next_move_ = now + move_pause_;
        move_pause_ = std::min(move_pause_ * 2, std::chrono::milliseconds(10'000));
    }

    /// Applies what has come, and says in `applied` whether that was something. False: the log cannot be read on.
    bool apply_some(bool &applied) {
        for (int turn = 0; turn < 64; ++turn) {
            if (held_.empty()) {
                plimsoll_entry entry;
                bool found = false;
                if (plimsoll_next_entry(applies_, &entry, &found) != PLIMSOLL_OK) return false;
                if (!found) break;
                const char *log = reinterpret_cast<const char *>(entry.bytes);
                index_ = entry.index;
                if (log[entry.len - 1] == is_preference) {
                    shared_.preferred.store(std::atoi(std::string(log, entry.len - 1).c_str()));
                }
                if (log[entry.len - 1] != is_log) {
                    applied_index_.store(index_, std::memory_order_release);
                    continue;
                }
                ++slot_;
                if (!offer(log, static_cast<int>(entry.len - 1))) {
                    held_.assign(log, log + entry.len);
                    break;
                }
            } else {
                if (!offer(held_.data(), static_cast<int>(held_.size() - 1))) break;
                held_.clear();
            }
            applied = true;
            applied_index_.store(index_, std::memory_order_release);
            applied_.fetch_add(1, std::memory_order_relaxed);
        }
        return true;
    }

    /// Gives a log to the engine. False: it is to be offered again, because nobody listens yet, or because it is to be
    /// deferred and there is no room for that.
    bool offer(const char *log, int len) {
        const Callbacks callbacks = shared_.callbacks(number_);
        if (!callbacks.leader && !callbacks.follower) return false;
        const auto &callback = leads() ? callbacks.leader : callbacks.follower;
        if (!callback) return true;
        const int returned = (*callback)(log, len, static_cast<int>(number_), static_cast<int>(slot_), unreplayed_);
        while (lengths_.size() > unreplayed_.size()) {
            deferred_bytes_.fetch_sub(lengths_.front());
            lengths_.pop_front();
        }
        const Answer answer = decode(returned, trailer_timestamp(log, len), last_timestamp_);
        if (answer.is_of_trailer) last_timestamp_ = answer.timestamp;
        if (answer.wrapped && wrapped_.fetch_add(1) == 0) {
            std::fprintf(stderr,
                         "plimsoll: partition %u: timestamp %u times ten no longer fits the callback's int; statuses are decoded "
                         "by the log's own timestamp, or the last one before it, from here on\n",
                         number_, answer.timestamp);
        }
        if (answer.status != static_cast<uint8_t>(Status::safety_fail) || len == 0) return true;
        return defer(answer, log, static_cast<size_t>(len));
    }

    bool defer(const Answer &answer, const char *log, size_t len) {
        if (!unreplayed_.empty() && deferred_bytes_.load() + len > deferred_bytes_max) return false;
        char *copy = static_cast<char *>(std::malloc(len));
        if (copy == nullptr) return false;
        std::memcpy(copy, log, len);
        unreplayed_.emplace(static_cast<int>(answer.timestamp), static_cast<int>(slot_), answer.status, static_cast<int>(len), copy);
        lengths_.push_back(len);
        deferred_bytes_.fetch_add(len);
        return true;
    }

    void complain(const char *what) const {
        char why[512];
        plimsoll_last_error(why, sizeof why);
        std::fprintf(stderr, "plimsoll: partition %u: %s: %s\n", number_, what, why);
    }

    // The last byte of what is replicated. What is before it is a log of the engine's, perhaps of no bytes, or the
    // preferred locale.
    static constexpr char is_log = 1;
    static constexpr char is_preference = 2;

    /// The number of what is no submit of the engine's, and so is not counted nor told: preferences.
    static constexpr uint64_t not_told = 0;

    const uint32_t number_;
    Shared &shared_;
    std::atomic<bool> stop_{false};
    std::atomic<bool> is_ending_{false};
    std::atomic<uint64_t> turn_{0};
    std::atomic<uint32_t> leader_{0};

    // Of the thread: what it has come upon and is yet to tell, and whether it does so just now.
    static inline thread_local std::deque<std::tuple<uint32_t, uint64_t, plimsoll_status>> untold_;
    static inline thread_local bool is_telling_ = false;

    std::mutex submit_mutex_;
    plimsoll_stream *submits_ = nullptr;
    Outcomes outcomes_;
    /// What has no outcome yet, and some that do, from the oldest on; requests only grow.
    std::deque<Open> open_;
    /// Of what was submitted here, the last that is known to be in the log.
    uint64_t committed_index_ = 0;

    // The worker's.
    plimsoll_stream *applies_ = nullptr;
    /// A log that is to be offered again, and the byte after it.
    std::vector<char> held_;
    uint64_t slot_ = 0;
    /// In the log, of what was taken last.
    uint64_t index_ = 0;
    /// Of the last log whose answer went with its trailer.
    uint32_t last_timestamp_ = 0;
    Unreplayed unreplayed_;
    std::deque<size_t> lengths_;
    std::chrono::steady_clock::time_point next_move_{};
    std::chrono::milliseconds move_pause_{100};
    int moved_to_ = -1;

    std::atomic<uint64_t> applied_{0}, applied_index_{0}, deferred_bytes_{0}, wrapped_{0};
    /// Of the worker, written by itself: its callbacks may ask before `worker_` is there.
    std::atomic<std::thread::id> worker_id_{};
    std::thread worker_;
};

}  // namespace plimsoll::mako
