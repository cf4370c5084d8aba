// Requests fed to the engine over the network: a listener for each partition at port 10010 and up, and what has come
// in.
//
// A request is little-endian: u8 kind (0 new order, 1 payment, 2 delivery, 3 order status, 4 stock level, 5 read, 6
// read-modify-write), u8 count, u16 0, then so many i32. Anything else ends the connection. What Mako's own clients
// send is a framing of its RPC library and is not understood here: they write requests as above, by `nc_send_request`.
//
// What waits for the engine is bounded, and so is how many are connected: what comes beyond is dropped, counted
// (`dropped_requests`) and, the first time, told on stderr.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace plimsoll::mako {

/// What a request asks for.
enum class RequestKind : uint8_t { new_order, payment, delivery, order_status, stock_level, read, rmw, count };

using Requests = std::vector<std::vector<int>>;

/// So many requests of a kind wait for a partition's engine, and as many again may stand where it looks.
constexpr size_t requests_max = 1 << 16;

/// So many may be connected to a partition.
constexpr size_t connections_max = 256;

/// How long nobody is let in when the process has no descriptor left.
constexpr auto deafness = std::chrono::milliseconds(100);

/// What a partition's listener has not taken.
struct Dropped {
    uint64_t requests = 0;
    uint64_t connections = 0;
};

/// One partition's listener. Requests are given to the engine's thread as it asks for them.
class RequestServer {
  public:
    RequestServer(const std::string &host, uint16_t port) {
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_port = htons(port);
        if (inet_pton(AF_INET, host.c_str(), &address.sin_addr) != 1) {
            std::fprintf(stderr, "plimsoll: nc_setup_server: %s is no IPv4 address; give one\n", host.c_str());
            return;
        }
        listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        const int yes = 1;
        setsockopt(listener_, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
        if (bind(listener_, reinterpret_cast<sockaddr *>(&address), sizeof address) != 0 || listen(listener_, 16) != 0) {
            std::fprintf(stderr, "plimsoll: nc_setup_server: cannot listen at %s:%u: %s\n", host.c_str(), port,
                         std::strerror(errno));
            return;
        }
        thread_ = std::thread([this] { run(); });
    }

    ~RequestServer() {
        stop_.store(true);
        if (thread_.joinable()) thread_.join();
        if (listener_ >= 0) close(listener_);
    }

    RequestServer(const RequestServer &) = delete;
    RequestServer &operator=(const RequestServer &) = delete;

    /// Moves what has come in of a kind to where the engine looks, and shows that. For one thread.
    Requests *take(RequestKind kind) {
        const size_t at = static_cast<size_t>(kind);
        const std::lock_guard<std::mutex> lock(mutex_);
        Requests &arrived = arrived_[at], &taken = taken_[at];
        // What the engine leaves there is no reason to put more and more beside it.
        const size_t room = requests_max - std::min(requests_max, taken.size());
        const auto end = arrived.begin() + static_cast<std::ptrdiff_t>(std::min(room, arrived.size()));
        for (auto request = arrived.begin(); request != end; ++request) taken.push_back(std::move(*request));
        arrived.erase(arrived.begin(), end);
        return &taken;
    }

    /// What was not taken so far.
    Dropped dropped() {
        const std::lock_guard<std::mutex> lock(mutex_);
        return dropped_;
    }

    bool is_listening() const { return thread_.joinable(); }

  private:
    struct Connection {
        int socket;
        std::vector<unsigned char> bytes;
    };

    void run() {
        std::vector<Connection> connections;
        while (!stop_.load()) {
            // What is below zero is not looked at.
            const bool is_deaf = std::chrono::steady_clock::now() < deaf_until_;
            std::vector<pollfd> watched{{is_deaf ? -1 : listener_, POLLIN, 0}};
            for (const auto &connection : connections) watched.push_back({connection.socket, POLLIN, 0});
            // It looks up now and then whether it is to stop.
            if (poll(watched.data(), watched.size(), 100) <= 0) continue;
            for (size_t at = connections.size(); at-- > 0;) {
                if (watched[at + 1].revents != 0 && !receive(connections[at])) {
                    close(connections[at].socket);
                    connections.erase(connections.begin() + static_cast<std::ptrdiff_t>(at));
                }
            }
            if (watched[0].revents != 0) admit(connections);
        }
        for (const auto &connection : connections) close(connection.socket);
    }

    void admit(std::vector<Connection> &connections) {
        const int accepted = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
        if (accepted < 0) {
            // Who waits to come in keeps the listener ready, and would keep this thread busy for nothing.
            const bool is_short = errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM;
            if (is_short) deaf_until_ = std::chrono::steady_clock::now() + deafness;
        } else if (connections.size() < connections_max) {
            connections.push_back({accepted, {}});
        } else {
            {
                const std::lock_guard<std::mutex> lock(mutex_);
                if (dropped_.connections++ == 0) {
                    std::fprintf(stderr, "plimsoll: %zu are connected to feed requests: more are turned away, and counted\n", connections_max);
                }
            }
            // Counted before: who is told so may look.
            close(accepted);
        }
    }

    /// With the mutex.
    void take_in(size_t kind, std::vector<int> request) {
        if (arrived_[kind].size() < requests_max) {
            arrived_[kind].push_back(std::move(request));
        } else if (dropped_.requests++ == 0) {
            std::fprintf(stderr, "plimsoll: %zu requests of kind %zu wait for the engine: more are dropped, and counted\n", requests_max,
                         kind);
        }
    }

    /// False: the connection has ended, or made no sense.
    bool receive(Connection &connection) {
        std::array<unsigned char, 4096> chunk;
        const ssize_t got = recv(connection.socket, chunk.data(), chunk.size(), 0);
        if (got <= 0) return false;
        auto &bytes = connection.bytes;
        bytes.insert(bytes.end(), chunk.begin(), chunk.begin() + got);
        size_t at = 0;
        while (bytes.size() - at >= 4) {
            const size_t count = bytes[at + 1];
            if (bytes[at] >= static_cast<uint8_t>(RequestKind::count) || bytes[at + 2] != 0 || bytes[at + 3] != 0) return false;
            if (bytes.size() - at < 4 + 4 * count) break;
            std::vector<int> request(count);
            for (size_t word = 0; word < count; ++word) {
                const unsigned char *from = &bytes[at + 4 + 4 * word];
                request[word] = static_cast<int>(from[0] | from[1] << 8 | from[2] << 16 | static_cast<uint32_t>(from[3]) << 24);
            }
            const std::lock_guard<std::mutex> lock(mutex_);
            take_in(bytes[at], std::move(request));
            at += 4 + 4 * count;
        }
        bytes.erase(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(at));
        return true;
    }

    int listener_ = -1;
    std::atomic<bool> stop_{false};
    std::mutex mutex_;
    std::array<Requests, static_cast<size_t>(RequestKind::count)> arrived_, taken_;
    Dropped dropped_;
    // The thread's.
    std::chrono::steady_clock::time_point deaf_until_{};
    std::thread thread_;
};

inline std::vector<std::unique_ptr<RequestServer>> &request_servers() {
    static std::vector<std::unique_ptr<RequestServer>> servers;
    return servers;
}

inline Requests *requests_of(int par_id, RequestKind kind) {
    auto &servers = request_servers();
    if (par_id < 0 || static_cast<size_t>(par_id) >= servers.size()) return nullptr;
    return servers[static_cast<size_t>(par_id)]->take(kind);
}

/// What a partition's listener has not taken; nothing for a partition that does not listen.
inline Dropped dropped_requests(int par_id) {
    auto &servers = request_servers();
    if (par_id < 0 || static_cast<size_t>(par_id) >= servers.size()) return {};
    return servers[static_cast<size_t>(par_id)]->dropped();
}

}  // namespace plimsoll::mako

/// Listens for requests at ports 10010 to 10010 + partitions - 1 of a host. Call it once, before the getters.
inline void nc_setup_server(int partitions, std::string host) {
    for (int par_id = 0; par_id < partitions; ++par_id) {
        plimsoll::mako::request_servers().push_back(
            std::make_unique<plimsoll::mako::RequestServer>(host, static_cast<uint16_t>(10010 + par_id)));
    }
}

// What has come in for a partition, of each kind, the oldest first; the engine's thread takes out what it has done.
// Null for a partition that does not listen. For one thread at a time and partition.

inline std::vector<std::vector<int>> *nc_get_new_order_requests(int par_id) {
    return plimsoll::mako::requests_of(par_id, plimsoll::mako::RequestKind::new_order);
}
inline std::vector<std::vector<int>> *nc_get_payment_requests(int par_id) {
    return plimsoll::mako::requests_of(par_id, plimsoll::mako::RequestKind::payment);
}
inline std::vector<std::vector<int>> *nc_get_delivery_requests(int par_id) {
    return plimsoll::mako::requests_of(par_id, plimsoll::mako::RequestKind::delivery);
}
inline std::vector<std::vector<int>> *nc_get_order_status_requests(int par_id) {
    return plimsoll::mako::requests_of(par_id, plimsoll::mako::RequestKind::order_status);
}
inline std::vector<std::vector<int>> *nc_get_stock_level_requests(int par_id) {
    return plimsoll::mako::requests_of(par_id, plimsoll::mako::RequestKind::stock_level);
}
inline std::vector<std::vector<int>> *nc_get_read_requests(int par_id) {
    return plimsoll::mako::requests_of(par_id, plimsoll::mako::RequestKind::read);
}
inline std::vector<std::vector<int>> *nc_get_rmw_requests(int par_id) {
    return plimsoll::mako::requests_of(par_id, plimsoll::mako::RequestKind::rmw);
}

/// A client's side: writes one request to a connected socket; whether all of it went out.
inline bool nc_send_request(int socket, plimsoll::mako::RequestKind kind, const std::vector<int> &words) {
    if (words.size() > 255) return false;
    std::vector<unsigned char> bytes{static_cast<uint8_t>(kind), static_cast<uint8_t>(words.size()), 0, 0};
    for (const int word : words) {
        for (int shift = 0; shift < 32; shift += 8) bytes.push_back(static_cast<unsigned char>(static_cast<uint32_t>(word) >> shift));
    }
    size_t at = 0;
    while (at < bytes.size()) {
        const ssize_t sent = send(socket, bytes.data() + at, bytes.size() - at, MSG_NOSIGNAL);
        if (sent <= 0) return false;
        at += static_cast<size_t>(sent);
    }
    return true;
}
