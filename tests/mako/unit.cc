// What of the drop-in needs no node: packed answers, requests over the network, Mako's files.
#include <cstdio>
#include <cstdlib>

#include "plimsoll/replication_helper.hpp"

using namespace plimsoll::mako;

namespace {

int checks = 0;

void check(bool good, const char *what, int line) {
    ++checks;
    if (!good) {
        std::fprintf(stderr, "unit.cc:%d: %s\n", line, what);
        std::exit(1);
    }
}
#define CHECK(what) check((what), #what, __LINE__)
// For loops, which must not make up the number of checks.
#define CHECK_QUIETLY(what) ((what) ? void() : check(false, #what, __LINE__))

void packed_answers() {
    CHECK(encode({7, 1, Status::replay_done}) == 74);
    CHECK(encode({214'748'364, 0, Status::noops}) == 2'147'483'645);
    CHECK(!encode({214'748'365, 0, Status::normal}));
    CHECK(!encode({uint64_t{1} << 40, 0, Status::normal}));
    // As the engine computes it: in 32 bits, then made an int.
    const auto answer = [](uint32_t timestamp, uint32_t status) { return static_cast<int>(timestamp * 10 + status); };
    for (const uint32_t timestamp : {0u, 1u, 21'474'836u, 214'748'364u, 214'748'365u, 429'496'729u, 429'496'730u, 4'000'000'000u}) {
        for (uint32_t status = 0; status <= 5; ++status) {
            const Answer decoded = decode(answer(timestamp, status), timestamp);
            CHECK(decoded.timestamp == timestamp && decoded.status == status);
            CHECK(decoded.wrapped == (uint64_t{timestamp} * 10 + status > 2'147'483'647u));
        }
    }
    // Without the log's own timestamp a wrapped answer is right up to 32 bits.
    CHECK(decode(answer(300'000'000, 3), std::nullopt).status == 3);
    CHECK(decode(answer(300'000'000, 3), std::nullopt).wrapped);
    // Nor does a no-op have one: the partition's last one says which of the sums it is, be it a positive int again.
    for (const uint32_t timestamp : {5u, 214'748'364u, 429'496'730u, 500'000'000u, 3'000'000'000u, 4'294'967'295u}) {
        for (const uint32_t last : {timestamp - 5, timestamp - std::min(timestamp, 200'000'000u)}) {
            const Answer decoded = decode(answer(timestamp, 5), std::nullopt, last);
            CHECK(decoded.timestamp == timestamp && decoded.status == 5 && !decoded.is_of_trailer);
            CHECK(decoded.wrapped == (uint64_t{timestamp} * 10 + 5 > 2'147'483'647u));
        }
    }
    CHECK(answer(500'000'000, 5) > 0);
    // Or it is answered with a status alone, wherever the partition stands.
    CHECK(decode(5, std::nullopt, 4'000'000'000u).status == 5 && !decode(5, std::nullopt, 4'000'000'000u).wrapped);
    // A callback that answers with a status alone, for a log whose trailer says something else.
    CHECK(decode(4, 99u).status == 4);
    CHECK(!trailer_timestamp("no-ops:3", 8) && !trailer_timestamp("ab", 2) && !trailer_timestamp("", 0));
    CHECK(trailer_timestamp("xx\x01\x02\x00\x00zzzz", 10) == 0x201u);
}

/// A socket that is connected to the first partition's listener.
int connected() {
    const int client = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(10010);
    inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
    CHECK(connect(client, reinterpret_cast<sockaddr *>(&address), sizeof address) == 0);
    return client;
}

/// More than the engine takes out, and more who connect than may.
void bounds() {
    const int client = connected();
    const size_t excess = 100;
    for (size_t at = 0; at < requests_max + excess; ++at) CHECK_QUIETLY(nc_send_request(client, RequestKind::rmw, {1}));
    while (dropped_requests(0).requests < excess) std::this_thread::yield();
    CHECK(nc_get_rmw_requests(0)->size() == requests_max && dropped_requests(0).requests == excess);
    // They stay where the engine looks until it takes them out, and no more come beside them.
    CHECK(nc_send_request(client, RequestKind::rmw, {2}) && nc_send_request(client, RequestKind::read, {3}));
    while (nc_get_read_requests(0)->empty()) std::this_thread::yield();
    CHECK(nc_get_rmw_requests(0)->size() == requests_max);
    nc_get_rmw_requests(0)->clear();
    CHECK((*nc_get_rmw_requests(0) == Requests{{2}}));

    std::vector<int> clients;
    nc_get_read_requests(0)->clear();
    while (clients.size() < connections_max - 1) {
        clients.push_back(connected());
        CHECK_QUIETLY(nc_send_request(clients.back(), RequestKind::read, {}));
        while (nc_get_read_requests(0)->size() < clients.size()) std::this_thread::yield();
    }
    // With the first that is all who may be; the next one is turned away, and the others are not.
    clients.push_back(connected());
    char byte;
    CHECK(recv(clients.back(), &byte, 1, 0) == 0);
    CHECK(dropped_requests(0).connections == 1 && dropped_requests(1).connections == 0);
    nc_get_payment_requests(0)->clear();
    CHECK(nc_send_request(clients.front(), RequestKind::payment, {7}));
    while (nc_get_payment_requests(0)->empty()) std::this_thread::yield();
    for (const int open : clients) close(open);
    close(client);
}

void elections() {
    std::vector<int> told;
    Elections elections;
    elections.begin(2);
    // What changes while the engine is told is told after that, by the thread that tells: nobody waits for it.
    elections.listen([&](int gained) {
        if (gained == 1 && told.empty()) {
            std::thread other([&] {
                elections.set(1, false);
                elections.set(1, true);
                elections.set(1, false);
                elections.listen([&](int later) { told.push_back(later); });
            });
            other.join();
        }
        told.push_back(gained);
    });
    elections.set(0, true);
    CHECK(told.empty());
    elections.set(1, true);
    // A gain that was over before it could be told is none.
    CHECK((told == std::vector<int>{1, 0}));
    elections.set(1, true);
    elections.set(1, true);
    CHECK((told == std::vector<int>{1, 0, 1}));
    elections.begin(1);
    elections.set(0, false);
    CHECK(told.size() == 3);
}

void requests() {
    nc_setup_server(1, "127.0.0.1");
    if (!request_servers()[0]->is_listening()) return;
    CHECK(nc_get_read_requests(1) == nullptr);
    const int client = connected();
    CHECK(nc_send_request(client, RequestKind::payment, {1, -2, 3}));
    CHECK(nc_send_request(client, RequestKind::new_order, {}));
    CHECK(nc_send_request(client, RequestKind::payment, {4}));
    while (nc_get_payment_requests(0)->size() < 2) std::this_thread::yield();
    CHECK((*nc_get_payment_requests(0) == Requests{{1, -2, 3}, {4}}));
    CHECK((*nc_get_new_order_requests(0) == Requests{{}}));
    CHECK(nc_get_rmw_requests(0)->empty() && nc_get_delivery_requests(0)->empty());
    // Nonsense ends the connection, and it alone.
    CHECK(send(client, "\x09\x00\x00\x00", 4, MSG_NOSIGNAL) == 4);
    char byte;
    CHECK(recv(client, &byte, 1, 0) == 0);
    close(client);
    bounds();
}

void files(const char *directory) {
    const std::string one = std::string(directory) + "/one.yml";
    const auto hosts = getHosts(one);
    CHECK(hosts.size() == 3 && hosts.at("p1") == "127.0.0.1");
    CHECK(getHosts("/nonexistent").empty());
    std::string arguments[] = {"test", "-f", one, "-P", "p1", "-d", "30"};
    std::vector<char *> argv;
    for (auto &argument : arguments) argv.push_back(argument.data());
    CHECK(setup(static_cast<int>(argv.size()), argv.data()) == std::vector<std::string>{"s201"});
    arguments[4] = "nobody";
    argv[4] = arguments[4].data();
    CHECK(setup(static_cast<int>(argv.size()), argv.data()).empty());
    CHECK(setup2() != 0 || shutdown_paxos() == 0);
    // Nothing runs: everything has an answer all the same.
    CHECK(!add_log_to_nc("x", 1, 0));
    CHECK(get_outstanding_logs(0) == -1);
    wait_for_submit(0);
    send_no_ops_to_all_workers(3);
    set_epoch(4);
    set_epoch();
    CHECK(get_epoch() == 5);
    CHECK(shutdown_paxos() == 0);
}

}  // namespace

int main(int argc, char **argv) {
    if (argc != 2) return 2;
    packed_answers();
    elections();
    requests();
    files(argv[1]);
    std::printf("%d checks\n", checks);
    return checks > 60 ? 0 : 1;
}
