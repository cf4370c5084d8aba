// The three forms in which the engine takes a committed log.
#pragma once

#include <functional>
#include <memory>
#include <queue>
#include <tuple>
#include <utility>

namespace plimsoll::mako {

/// Deferred logs: timestamp, slot, status, length, and a copy from malloc that whoever takes it out frees.
using Unreplayed = std::queue<std::tuple<int, int, int, int, const char *>>;

/// Log, length, partition, slot, deferred logs; answers `timestamp*10 + status`.
using WatermarkCallback = std::function<int(const char *&, int, int, int, Unreplayed &)>;

/// One callback, of whichever form.
class Callback {
  public:
    static Callback simple(std::function<void(const char *, int)> call) {
        return Callback([call = std::move(call)](const char *&log, int len, int, int, Unreplayed &) {
            call(log, len);
            return 0;
        });
    }

    static Callback with_partition(std::function<void(const char *&, int, int)> call) {
        return Callback([call = std::move(call)](const char *&log, int len, int par_id, int, Unreplayed &) {
            call(log, len, par_id);
            return 0;
        });
    }

    static Callback watermark(WatermarkCallback call) { return Callback(std::move(call)); }

    int operator()(const char *log, int len, int par_id, int slot, Unreplayed &unreplayed) const {
        return call_(log, len, par_id, slot, unreplayed);
    }

  private:
    explicit Callback(WatermarkCallback call) : call_(std::move(call)) {}

    WatermarkCallback call_;
};

/// A partition's callbacks. Either may be missing.
struct Callbacks {
    std::shared_ptr<const Callback> leader;
    std::shared_ptr<const Callback> follower;
};

}  // namespace plimsoll::mako
