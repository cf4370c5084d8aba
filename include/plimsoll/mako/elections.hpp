// Whether this process leads all partitions, and who is told of that.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <utility>
#include <vector>

namespace plimsoll::mako {

/// The engine is told of all partitions as one: it cannot run with half of them. Workers say how their own stand, at
/// any time and from any thread, and the engine is told each change once, in the order in which they came, by one
/// thread at a time. No lock is held while it is told, so it may call whatever it likes; a worker that comes upon
/// another one telling leaves its news to that, and does not wait.
class Elections {
  public:
    /// So many partitions, of which none is led.
    void begin(size_t partitions) {
        const std::lock_guard<std::mutex> lock(mutex_);
        led_.assign(partitions, false);
        leads_ = false;
        untold_.clear();
    }

    void listen(std::function<void(int)> callback) {
        const std::lock_guard<std::mutex> lock(mutex_);
        callback_ = std::move(callback);
    }

    /// How a partition stands.
    void set(uint32_t partition, bool leads) {
        std::unique_lock<std::mutex> lock(mutex_);
        led_[partition] = leads;
        change(std::all_of(led_.begin(), led_.end(), [](bool led) { return led; }));
        if (is_telling_) return;
        is_telling_ = true;
        while (!untold_.empty()) {
            const int news = untold_.front();
            untold_.pop_front();
            const std::function<void(int)> callback = callback_;
            lock.unlock();
            if (callback) callback(news);
            lock.lock();
        }
        is_telling_ = false;
    }

  private:
    /// With the mutex.
    void change(bool leads) {
        if (leads == leads_) return;
        leads_ = leads;
        // A gain that is over before it was told is none. A loss is told though it was made good: what was submitted in
        // between was refused. So there are never more than two.
        if (!leads && !untold_.empty() && untold_.back() == 1) untold_.pop_back();
        else untold_.push_back(leads ? 1 : 0);
    }

    std::mutex mutex_;
    std::vector<bool> led_;
    bool leads_ = false;
    bool is_telling_ = false;
    std::deque<int> untold_;
    std::function<void(int)> callback_;
};

}  // namespace plimsoll::mako
