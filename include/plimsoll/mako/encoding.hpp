// How Mako packs a timestamp and a status into an int, and what can be known when it no longer fits.
#pragma once

#include <cstdint>
#include <cstring>
#include <limits>
#include <optional>

namespace plimsoll::mako {

/// What a callback says of a log.
enum class Status : uint8_t { normal = 0, init = 1, ending = 2, safety_fail = 3, replay_done = 4, noops = 5 };

/// What is inside, and wide enough.
struct Stamp {
    uint64_t timestamp;
    uint32_t epoch;
    Status status;
};

/// The compatible form, `timestamp*10 + status`; none: it does not fit an int, which begins at timestamp 214,748,365.
inline std::optional<int> encode(const Stamp &stamp) {
    constexpr uint64_t max = std::numeric_limits<int>::max();
    const uint64_t status = static_cast<uint64_t>(stamp.status);
    if (stamp.timestamp > (max - status) / 10) return std::nullopt;
    return static_cast<int>(stamp.timestamp * 10 + status);
}

/// What a callback's answer means.
struct Answer {
    uint32_t timestamp;
    uint8_t status;
    /// The sum was beyond an int and has wrapped.
    bool wrapped;
    /// It is the log's own timestamp, so that the status is right whatever has wrapped.
    bool is_of_trailer;
};

/// The timestamp in a log's trailer, its last eight bytes; none: it is too short to have one.
inline std::optional<uint32_t> trailer_timestamp(const char *log, int len) {
    if (len < 8 || (len == 8 && std::memcmp(log, "no-ops:", 7) == 0)) return std::nullopt;
    unsigned char bytes[4];
    std::memcpy(bytes, log + len - 8, sizeof bytes);
    return bytes[0] | bytes[1] << 8 | bytes[2] << 16 | static_cast<uint32_t>(bytes[3]) << 24;
}

/// Takes an answer apart. The engine computes it in 32 bits, so that it wraps: status 3 then reads as -3 to who
/// divides, and beyond 2^32 the sum may even be a positive int again. Where the log's own timestamp is known the status
/// is what is left when that is taken off, whatever has wrapped. A log without one (a no-op, a marker) is answered with
/// a status alone, or with a timestamp of about where the partition stands, `near`: of the sums that read like this in
/// 32 bits the one next to that is taken. They lie 429,496,730 timestamps apart, so it is right within half of that.
inline Answer decode(int answer, std::optional<uint32_t> timestamp, uint32_t near = 0) {
    const uint32_t bits = static_cast<uint32_t>(answer);
    constexpr uint32_t status_max = static_cast<uint32_t>(Status::noops);
    constexpr uint64_t int_max = std::numeric_limits<int>::max();
    if (timestamp) {
        const uint32_t status = bits - *timestamp * 10;
        const uint64_t sum = uint64_t{*timestamp} * 10 + status;
        if (status <= status_max) return {*timestamp, static_cast<uint8_t>(status), sum > int_max, true};
        near = *timestamp;
    }
    uint64_t sum = bits;
    if (bits > status_max) {
        const auto distance = [near](uint64_t of) {
            const uint64_t wanted = uint64_t{near} * 10;
            return of > wanted ? of - wanted : wanted - of;
        };
        constexpr uint64_t round = uint64_t{1} << 32;
        constexpr uint64_t sum_max = uint64_t{std::numeric_limits<uint32_t>::max()} * 10 + 9;
        while (sum + round <= sum_max && distance(sum + round) < distance(sum)) sum += round;
    }
    return {static_cast<uint32_t>(sum / 10), static_cast<uint8_t>(sum % 10), sum > int_max, false};
}

}  // namespace plimsoll::mako
