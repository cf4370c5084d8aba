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
    // A callback that answers with a status alone, for a log whose trailer says something else.
    CHECK(decode(4, 99u).status == 4);
    CHECK(!trailer_timestamp("no-ops:3", 8) && !trailer_timestamp("ab", 2) && !trailer_timestamp("", 0));
    CHECK(trailer_timestamp("xx\x01\x02\x00\x00zzzz", 10) == 0x201u);
}

void requests() {
    nc_setup_server(1, "127.0.0.1");
    if (!request_servers()[0]->is_listening()) return;
    CHECK(nc_get_read_requests(1) == nullptr);
    const int client = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(10010);
    inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
    CHECK(connect(client, reinterpret_cast<sockaddr *>(&address), sizeof address) == 0);
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
    requests();
    files(argv[1]);
    std::printf("%d checks\n", checks);
    return checks > 60 ? 0 : 1;
}
