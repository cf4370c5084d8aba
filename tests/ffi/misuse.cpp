// Bad input to every function of the C ABI, and calls where they should not be: each is answered, and nothing is
// harmed.
//
//   misuse CONFIG SOCKET CONFIG_WITHOUT_STREAMS    the node of CONFIG lets engines in at SOCKET

#include "plimsoll.h"

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

// Only in builds with debug assertions: a panic that uses the stream.
extern "C" plimsoll_status plimsoll_test_panic(plimsoll_stream *stream);

namespace {

constexpr uint64_t PATIENCE_US = 20'000'000;
const char *const CLUSTER = "ffi-test";
const uint8_t RECORD[] = "a record";
constexpr size_t LEN = sizeof RECORD - 1;

std::string last_error() {
    std::string text(plimsoll_last_error(nullptr, 0), '\0');
    plimsoll_last_error(text.data(), text.size() + 1);
    return text;
}

#define CHECK(holds)                                                                              \
    do {                                                                                          \
        if (!(holds)) {                                                                           \
            std::fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #holds);       \
            std::exit(1);                                                                         \
        }                                                                                         \
    } while (0)

#define ANSWERS(expected, call)                                                                                  \
    do {                                                                                                         \
        const plimsoll_status answered = (call);                                                                 \
        if (answered != (expected)) {                                                                            \
            std::fprintf(stderr, "%s:%d: %s: answers %d (%s), not %s\n", __FILE__, __LINE__, #call, answered,    \
                         last_error().c_str(), #expected);                                                       \
            std::exit(1);                                                                                        \
        }                                                                                                        \
    } while (0)

plimsoll_stream_options options_of(uint64_t session, uint32_t shard = 0) {
    plimsoll_stream_options options;
    ANSWERS(PLIMSOLL_OK, plimsoll_stream_options_init(&options, sizeof options));
    options.session = session;
    options.shard = shard;
    options.cluster = CLUSTER;
    return options;
}

plimsoll_stream *open(plimsoll_node *node, uint64_t session, uint32_t shard = 0) {
    const plimsoll_stream_options options = options_of(session, shard);
    plimsoll_stream *stream = nullptr;
    ANSWERS(PLIMSOLL_OK, plimsoll_stream_open(node, &options, &stream));
    return stream;
}

// The next completion, whichever request's.
plimsoll_completion completion(plimsoll_stream *stream) {
    plimsoll_completion found;
    size_t count = 0;
    while (count == 0) {
        ANSWERS(PLIMSOLL_OK, plimsoll_wait(stream, PATIENCE_US));
        ANSWERS(PLIMSOLL_OK, plimsoll_completions(stream, &found, 1, &count));
    }
    return found;
}

plimsoll_status submitted(plimsoll_stream *stream, uint64_t timestamp) {
    uint64_t request = 0;
    ANSWERS(PLIMSOLL_OK, plimsoll_submit(stream, RECORD, LEN, timestamp, 0, PLIMSOLL_ACKS_QUORUM, &request));
    const plimsoll_completion end = completion(stream);
    CHECK(end.request == request);
    return end.status;
}

// A record without a stamp goes into any stream, as soon as the node leads.
void await_leader(plimsoll_stream *stream) {
    plimsoll_status status;
    while ((status = submitted(stream, 0)) == PLIMSOLL_NOT_LEADER) {}
    CHECK(status == PLIMSOLL_COMMITTED);
}

// Until the stream takes records: a moment after it was registered, in whatever lane.
void await_takes_records(plimsoll_stream *stream) {
    plimsoll_role role;
    ANSWERS(PLIMSOLL_OK, plimsoll_stream_role(stream, &role));
    while (!role.takes_records) {
        size_t count;
        ANSWERS(PLIMSOLL_OK, plimsoll_wait(stream, PATIENCE_US));
        ANSWERS(PLIMSOLL_OK, plimsoll_completions(stream, nullptr, 0, &count));
        ANSWERS(PLIMSOLL_OK, plimsoll_stream_role(stream, &role));
    }
}

// Until it is told that the stream has come to this timestamp of epoch 0: a moment after the record's own outcome.
void await_stands_at(plimsoll_stream *stream, uint64_t timestamp) {
    plimsoll_stamp stands_at;
    ANSWERS(PLIMSOLL_OK, plimsoll_stream_stands_at(stream, &stands_at));
    while (stands_at.timestamp != timestamp) {
        CHECK(stands_at.epoch == 0 && stands_at.timestamp < timestamp);
        size_t count;
        ANSWERS(PLIMSOLL_OK, plimsoll_wait(stream, PATIENCE_US));
        ANSWERS(PLIMSOLL_OK, plimsoll_completions(stream, nullptr, 0, &count));
        ANSWERS(PLIMSOLL_OK, plimsoll_stream_stands_at(stream, &stands_at));
    }
}

void nulls_are_answered() {
    plimsoll_node *node = nullptr;
    plimsoll_stream *stream = nullptr;
    plimsoll_replica *replica = nullptr;
    plimsoll_waker *waker = nullptr;
    plimsoll_stream_options options = options_of(1);
    plimsoll_stamp stamp;
    plimsoll_role role;
    size_t count;
    uint64_t number;
    uint8_t *bytes;
    bool found;
    const plimsoll_status null = PLIMSOLL_NULL_ARGUMENT;
    ANSWERS(null, plimsoll_node_open(nullptr, &node));
    ANSWERS(null, plimsoll_node_open("nowhere", nullptr));
    ANSWERS(null, plimsoll_node_watermark(nullptr, &stamp));
    ANSWERS(null, plimsoll_node_vector(nullptr, nullptr, 0, &count));
    ANSWERS(null, plimsoll_stream_options_init(nullptr, sizeof options));
    ANSWERS(null, plimsoll_stream_open(nullptr, &options, &stream));
    ANSWERS(null, plimsoll_stream_connect(nullptr, &options, &stream));
    ANSWERS(null, plimsoll_stream_connect("nowhere", nullptr, &stream));
    ANSWERS(null, plimsoll_stream_connect("nowhere", &options, nullptr));
    ANSWERS(null, plimsoll_stream_reattach(nullptr));
    ANSWERS(null, plimsoll_reserve(nullptr, 1, &bytes));
    ANSWERS(null, plimsoll_publish(nullptr, 0, 0, 0, &number));
    ANSWERS(null, plimsoll_abandon(nullptr));
    ANSWERS(null, plimsoll_submit(nullptr, RECORD, LEN, 0, 0, 0, &number));
    ANSWERS(null, plimsoll_outstanding(nullptr, &count));
    ANSWERS(null, plimsoll_next_serial(nullptr, &number));
    ANSWERS(null, plimsoll_stream_watermark(nullptr, &stamp));
    ANSWERS(null, plimsoll_stream_role(nullptr, &role));
    ANSWERS(null, plimsoll_stream_stands_at(nullptr, &stamp));
    ANSWERS(null, plimsoll_poll(nullptr, &count));
    ANSWERS(null, plimsoll_completions(nullptr, nullptr, 0, &count));
    ANSWERS(null, plimsoll_wait(nullptr, 0));
    ANSWERS(null, plimsoll_on_completion(nullptr, nullptr, nullptr));
    ANSWERS(null, plimsoll_on_watermark(nullptr, nullptr, nullptr));
    ANSWERS(null, plimsoll_on_role(nullptr, nullptr, nullptr));
    ANSWERS(null, plimsoll_on_epoch_closed(nullptr, nullptr, nullptr));
    ANSWERS(null, plimsoll_stream_epoch_closed(nullptr, &stamp, &found));
    ANSWERS(null, plimsoll_on_apply(nullptr, 1, nullptr, nullptr));
    ANSWERS(null, plimsoll_register_stream(nullptr, 0, &number));
    ANSWERS(null, plimsoll_advance(nullptr, 1, 0, &number));
    ANSWERS(null, plimsoll_end_of_stream(nullptr, &number));
    ANSWERS(null, plimsoll_end_of_epoch(nullptr, 0, &number));
    ANSWERS(null, plimsoll_cut_epoch(nullptr, 0, &number));
    ANSWERS(null, plimsoll_transfer(nullptr, 1, &number));
    ANSWERS(null, plimsoll_read_index(nullptr, &number));
    ANSWERS(null, plimsoll_replica_open(nullptr, 1, 1, &replica));
    ANSWERS(null, plimsoll_replica_connect(nullptr, &options, 1, 1, &replica));
    ANSWERS(null, plimsoll_replica_poll(nullptr, nullptr, nullptr, &count));
    ANSWERS(null, plimsoll_replica_watermark(nullptr, &stamp));
    ANSWERS(null, plimsoll_replica_reattach(nullptr));
    ANSWERS(null, plimsoll_replica_wait(nullptr, 0));
    ANSWERS(null, plimsoll_replica_waker(nullptr, &waker));
    ANSWERS(null, plimsoll_stream_waker(nullptr, &waker));
    ANSWERS(null, plimsoll_wake(nullptr));
    CHECK(node == nullptr && stream == nullptr && replica == nullptr && waker == nullptr);
    // As of free: nothing to end.
    ANSWERS(PLIMSOLL_OK, plimsoll_node_close(nullptr));
    ANSWERS(PLIMSOLL_OK, plimsoll_stream_close(nullptr));
    ANSWERS(PLIMSOLL_OK, plimsoll_replica_close(nullptr));
    ANSWERS(PLIMSOLL_OK, plimsoll_waker_close(nullptr));
}

void texts_fit_where_they_go() {
    plimsoll_node *node = nullptr;
    ANSWERS(PLIMSOLL_CONFIG, plimsoll_node_open("/nowhere/at/all.toml", &node));
    const std::string whole = last_error();
    CHECK(whole.find("/nowhere/at/all.toml") != std::string::npos);
    char small[8];
    std::memset(small, 'x', sizeof small);
    CHECK(plimsoll_last_error(small, sizeof small) == whole.size());
    CHECK(small[7] == '\0' && whole.compare(0, 7, small) == 0);
    CHECK(plimsoll_last_error(nullptr, 100) == whole.size());
    CHECK(plimsoll_last_error(small, 0) == whole.size());
    CHECK(std::strcmp(plimsoll_status_text(PLIMSOLL_BEHIND), plimsoll_status_text(12345)) != 0);
    // Each thread has its own.
    std::thread([] { CHECK(last_error() == plimsoll_status_text(PLIMSOLL_OK)); }).join();
    CHECK(last_error() == whole);
}

void attachments_are_refused(plimsoll_node *node, const char *socket) {
    plimsoll_stream *stream = nullptr;
    plimsoll_stream *held = open(node, 5);
    const auto refused = [&](plimsoll_status status, plimsoll_stream_options options) {
        ANSWERS(status, plimsoll_stream_open(node, &options, &stream));
        ANSWERS(status, plimsoll_stream_connect(socket, &options, &stream));
    };
    plimsoll_stream_options options = options_of(5);
    refused(PLIMSOLL_REFUSED_HELD, options);
    refused(PLIMSOLL_REFUSED_SHARD, options_of(5, 9));
    refused(PLIMSOLL_REFUSED_SESSION, options_of(0));
    options.submit_ring_bytes = 4096;
    refused(PLIMSOLL_REFUSED_SIZES, options);
    options = options_of(6);
    options.size_bytes = 8;
    refused(PLIMSOLL_SIZE, options);
    options = options_of(6);
    options.cluster = "another";
    ANSWERS(PLIMSOLL_REFUSED_CLUSTER, plimsoll_stream_connect(socket, &options, &stream));
    options.cluster = "\xff\xfe";
    ANSWERS(PLIMSOLL_BAD_UTF8, plimsoll_stream_connect(socket, &options, &stream));
    options.cluster = nullptr;
    ANSWERS(PLIMSOLL_NULL_ARGUMENT, plimsoll_stream_connect(socket, &options, &stream));
    options = options_of(6);
    ANSWERS(PLIMSOLL_UNREACHABLE, plimsoll_stream_connect("/nowhere/at/all", &options, &stream));
    const std::string endless(100'000, 'p');
    ANSWERS(PLIMSOLL_UNREACHABLE, plimsoll_stream_connect(endless.c_str(), &options, &stream));
    ANSWERS(PLIMSOLL_UNREACHABLE, plimsoll_stream_connect("", &options, &stream));
    ANSWERS(PLIMSOLL_SIZE, plimsoll_stream_options_init(&options, 7));
    plimsoll_replica *replica = nullptr;
    options = options_of(6);
    ANSWERS(PLIMSOLL_BAD_ARGUMENT, plimsoll_replica_connect(socket, &options, 0, 1, &replica));
    ANSWERS(PLIMSOLL_REFUSED_SHARD, plimsoll_replica_connect(socket, &options, 3, 1, &replica));
    ANSWERS(PLIMSOLL_REFUSED_SESSION, plimsoll_replica_open(node, 1, 0, &replica));
    CHECK(stream == nullptr && replica == nullptr);
    ANSWERS(PLIMSOLL_OK, plimsoll_stream_close(held));
}

void arguments_are_looked_at(plimsoll_node *node) {
    plimsoll_stream *stream = open(node, 7);
    await_leader(stream);
    uint64_t request;
    uint8_t *bytes = nullptr;
    size_t count;
    // Sizes.
    ANSWERS(PLIMSOLL_SIZE, plimsoll_submit(stream, RECORD, 0, 0, 0, 2, &request));
    ANSWERS(PLIMSOLL_SIZE, plimsoll_submit(stream, nullptr, 0, 0, 0, 2, &request));
    ANSWERS(PLIMSOLL_SIZE, plimsoll_submit(stream, RECORD, SIZE_MAX, 0, 0, 2, &request));
    ANSWERS(PLIMSOLL_NULL_ARGUMENT, plimsoll_submit(stream, nullptr, 1, 0, 0, 2, &request));
    ANSWERS(PLIMSOLL_SIZE, plimsoll_reserve(stream, 0, &bytes));
    ANSWERS(PLIMSOLL_SIZE, plimsoll_reserve(stream, SIZE_MAX, &bytes));
    ANSWERS(PLIMSOLL_SIZE, plimsoll_reserve(stream, 32 << 20, &bytes));
    CHECK(bytes == nullptr);
    // Numbers.
    ANSWERS(PLIMSOLL_BAD_ARGUMENT, plimsoll_submit(stream, RECORD, LEN, 0, 0, 3, &request));
    ANSWERS(PLIMSOLL_BAD_ARGUMENT, plimsoll_transfer(stream, 0, &request));
    ANSWERS(PLIMSOLL_BAD_ARGUMENT, plimsoll_register_stream(stream, UINT32_MAX, &request));
    const auto nobody = [](void *, const plimsoll_entry *) {};
    ANSWERS(PLIMSOLL_BAD_ARGUMENT, plimsoll_on_apply(stream, 0, nobody, nullptr));
    ANSWERS(PLIMSOLL_BAD_ARGUMENT, plimsoll_on_apply(stream, UINT64_MAX, nobody, nullptr));
    // Where the answer goes.
    ANSWERS(PLIMSOLL_NULL_ARGUMENT, plimsoll_submit(stream, RECORD, LEN, 0, 0, 2, nullptr));
    ANSWERS(PLIMSOLL_NULL_ARGUMENT, plimsoll_reserve(stream, 8, nullptr));
    ANSWERS(PLIMSOLL_NULL_ARGUMENT, plimsoll_poll(stream, nullptr));
    ANSWERS(PLIMSOLL_NULL_ARGUMENT, plimsoll_completions(stream, nullptr, 4, &count));
    ANSWERS(PLIMSOLL_NULL_ARGUMENT, plimsoll_read_index(stream, nullptr));
    ANSWERS(PLIMSOLL_NULL_ARGUMENT, plimsoll_stream_watermark(stream, nullptr));
    // Reservations.
    ANSWERS(PLIMSOLL_NOT_RESERVED, plimsoll_publish(stream, 0, 0, 2, &request));
    ANSWERS(PLIMSOLL_NOT_RESERVED, plimsoll_abandon(stream));
    ANSWERS(PLIMSOLL_OK, plimsoll_reserve(stream, LEN, &bytes));
    std::memcpy(bytes, RECORD, LEN);
    ANSWERS(PLIMSOLL_RESERVED, plimsoll_reserve(stream, LEN, &bytes));
    ANSWERS(PLIMSOLL_RESERVED, plimsoll_submit(stream, RECORD, LEN, 0, 0, 2, &request));
    ANSWERS(PLIMSOLL_RESERVED, plimsoll_poll(stream, &count));
    ANSWERS(PLIMSOLL_RESERVED, plimsoll_wait(stream, 0));
    ANSWERS(PLIMSOLL_RESERVED, plimsoll_read_index(stream, &request));
    ANSWERS(PLIMSOLL_BAD_ARGUMENT, plimsoll_publish(stream, 0, 0, 77, &request));
    ANSWERS(PLIMSOLL_OK, plimsoll_publish(stream, 0, 0, 2, &request));
    CHECK(completion(stream).status == PLIMSOLL_COMMITTED);
    ANSWERS(PLIMSOLL_OK, plimsoll_reserve(stream, LEN, &bytes));
    ANSWERS(PLIMSOLL_OK, plimsoll_abandon(stream));
    // A record in parts, and one that is the longest.
    const std::vector<uint8_t> longest(64 << 20, 'x');
    ANSWERS(PLIMSOLL_SIZE, plimsoll_submit(stream, longest.data(), longest.size() + 1, 0, 0, 2, &request));
    ANSWERS(PLIMSOLL_OK, plimsoll_submit(stream, longest.data(), 3 << 20, 0, 0, 2, &request));
    CHECK(completion(stream).status == PLIMSOLL_COMMITTED);
    // A full ring is no error that ends anything.
    plimsoll_status status;
    size_t taken = 0;
    while ((status = plimsoll_submit(stream, longest.data(), 500'000, 0, 0, 2, &request)) == PLIMSOLL_OK) {
        taken++;
        CHECK(taken < 10'000);
        if (taken == 50) break;
    }
    CHECK(status == PLIMSOLL_OK || status == PLIMSOLL_BUSY);
    for (; taken > 0; taken--) CHECK(completion(stream).status == PLIMSOLL_COMMITTED);
    ANSWERS(PLIMSOLL_TIMED_OUT, plimsoll_wait(stream, 1000));
    ANSWERS(PLIMSOLL_OK, plimsoll_completions(stream, nullptr, 0, &count));
    ANSWERS(PLIMSOLL_OK, plimsoll_stream_close(stream));
}

// Every outcome that can be had of one node.
void outcomes_are_told(plimsoll_node *node) {
    plimsoll_stream *first = open(node, 8, 0);
    plimsoll_stream *second = open(node, 8, 1);
    await_leader(first);
    await_leader(second);
    uint64_t request;
    CHECK(submitted(second, 5) == PLIMSOLL_UNREGISTERED);
    for (uint32_t shard = 0; shard < 2; shard++) {
        ANSWERS(PLIMSOLL_OK, plimsoll_register_stream(first, shard, &request));
        CHECK(completion(first).status == PLIMSOLL_COMMITTED);
    }
    plimsoll_stamp stamp;
    plimsoll_stream_stamp stamps[2];
    size_t count = 0;
    ANSWERS(PLIMSOLL_NULL_ARGUMENT, plimsoll_node_watermark(node, nullptr));
    ANSWERS(PLIMSOLL_TOO_SMALL, plimsoll_node_vector(node, stamps, 1, &count));
    CHECK(count == 2);
    ANSWERS(PLIMSOLL_TOO_SMALL, plimsoll_node_vector(node, nullptr, 0, &count));
    ANSWERS(PLIMSOLL_NULL_ARGUMENT, plimsoll_node_vector(node, nullptr, 2, &count));
    ANSWERS(PLIMSOLL_NULL_ARGUMENT, plimsoll_node_vector(node, stamps, 2, nullptr));
    await_takes_records(first);
    await_takes_records(second);
    CHECK(submitted(second, 10) == PLIMSOLL_COMMITTED);
    await_stands_at(second, 10);
    ANSWERS(PLIMSOLL_NULL_ARGUMENT, plimsoll_stream_stands_at(second, nullptr));
    ANSWERS(PLIMSOLL_OK, plimsoll_submit(second, RECORD, LEN, 9, 0, PLIMSOLL_ACKS_QUORUM, &request));
    plimsoll_completion end = completion(second);
    CHECK(end.status == PLIMSOLL_BEHIND && end.stamp.timestamp == 10 && end.stamp.epoch == 0);
    ANSWERS(PLIMSOLL_OK, plimsoll_submit(second, RECORD, LEN, 11, 3, PLIMSOLL_ACKS_QUORUM, &request));
    end = completion(second);
    CHECK(end.status == PLIMSOLL_EPOCH_CLOSED && end.stamp.epoch == 0);
    CHECK(submitted(second, UINT64_MAX) == PLIMSOLL_INVALID);
    ANSWERS(PLIMSOLL_OK, plimsoll_read_index(second, &request));
    end = completion(second);
    CHECK(end.status == PLIMSOLL_CONFIRMED && end.request == request && end.index > 1);
    ANSWERS(PLIMSOLL_OK, plimsoll_transfer(second, 7, &request));
    CHECK(completion(second).status == PLIMSOLL_INVALID);
    CHECK(submitted(first, 12) == PLIMSOLL_COMMITTED);
    ANSWERS(PLIMSOLL_OK, plimsoll_node_watermark(node, &stamp));
    CHECK(stamp.timestamp == 10 && stamp.epoch == 0);
    ANSWERS(PLIMSOLL_OK, plimsoll_end_of_stream(second, &request));
    CHECK(completion(second).status == PLIMSOLL_COMMITTED);
    bool found = true;
    ANSWERS(PLIMSOLL_NULL_ARGUMENT, plimsoll_stream_epoch_closed(first, &stamp, nullptr));
    ANSWERS(PLIMSOLL_OK, plimsoll_stream_epoch_closed(first, &stamp, &found));
    CHECK(!found);
    ANSWERS(PLIMSOLL_OK, plimsoll_end_of_epoch(first, 0, &request));
    CHECK(completion(first).status == PLIMSOLL_COMMITTED);
    plimsoll_role role;
    do {
        await_takes_records(first);
        ANSWERS(PLIMSOLL_OK, plimsoll_stream_role(first, &role));
        if (role.epoch == 0) ANSWERS(PLIMSOLL_OK, plimsoll_wait(first, PATIENCE_US));
        ANSWERS(PLIMSOLL_OK, plimsoll_completions(first, nullptr, 0, &count));
    } while (role.epoch == 0);
    ANSWERS(PLIMSOLL_OK, plimsoll_stream_epoch_closed(first, &stamp, &found));
    CHECK(found && stamp.epoch == 0 && stamp.timestamp == UINT64_MAX);
    ANSWERS(PLIMSOLL_OK, plimsoll_stream_close(first));
    ANSWERS(PLIMSOLL_OK, plimsoll_stream_close(second));
}

// What a thread is told of epochs, in the order in which it is told.
struct Epochs {
    std::vector<plimsoll_stamp> closed;
    plimsoll_role role{};

    static void on_closed(void *context, const plimsoll_stamp *last) { static_cast<Epochs *>(context)->closed.push_back(*last); }

    static void on_role(void *context, const plimsoll_role *role) {
        auto *epochs = static_cast<Epochs *>(context);
        epochs->role = *role;
        CHECK(role->epoch == epochs->closed.size());
        CHECK(!role->takes_records || (role->role == PLIMSOLL_ROLE_LEADER && role->open && !role->closing));
    }
};

// After outcomes_are_told: epoch 0 is closed, and stream 1 has ended for good.
void ends_of_epochs_are_told(plimsoll_node *node) {
    plimsoll_stream *stream = open(node, 19);
    Epochs epochs;
    ANSWERS(PLIMSOLL_OK, plimsoll_on_epoch_closed(stream, Epochs::on_closed, &epochs));
    ANSWERS(PLIMSOLL_OK, plimsoll_on_role(stream, Epochs::on_role, &epochs));
    const auto poll_until_epoch = [&](uint32_t epoch) {
        while (epochs.role.epoch != epoch || !epochs.role.takes_records) {
            size_t count;
            ANSWERS(PLIMSOLL_OK, plimsoll_wait(stream, PATIENCE_US));
            ANSWERS(PLIMSOLL_OK, plimsoll_poll(stream, &count));
        }
    };
    poll_until_epoch(1);
    CHECK(epochs.closed.size() == 1 && epochs.closed[0].epoch == 0 && epochs.closed[0].timestamp == UINT64_MAX);
    uint64_t request;
    ANSWERS(PLIMSOLL_OK, plimsoll_submit(stream, RECORD, LEN, 5, 1, PLIMSOLL_ACKS_QUORUM, &request));
    CHECK(completion(stream).status == PLIMSOLL_COMMITTED);
    ANSWERS(PLIMSOLL_OK, plimsoll_cut_epoch(stream, 1, &request));
    poll_until_epoch(2);
    CHECK(epochs.closed.size() == 2 && epochs.closed[1].epoch == 1 && epochs.closed[1].timestamp == 5);
    ANSWERS(PLIMSOLL_OK, plimsoll_stream_close(stream));
}

struct Reentry {
    plimsoll_stream *stream;
    size_t ends;
    size_t applied;
};

// What a callback may not do to its stream, what it may, and what follows of it.
void reenter(Reentry *reentry) {
    plimsoll_stream *stream = reentry->stream;
    size_t count;
    plimsoll_completion end;
    ANSWERS(PLIMSOLL_REENTERED, plimsoll_poll(stream, &count));
    ANSWERS(PLIMSOLL_REENTERED, plimsoll_completions(stream, &end, 1, &count));
    ANSWERS(PLIMSOLL_REENTERED, plimsoll_wait(stream, 0));
    ANSWERS(PLIMSOLL_REENTERED, plimsoll_stream_reattach(stream));
    ANSWERS(PLIMSOLL_REENTERED, plimsoll_stream_close(stream));
    ANSWERS(PLIMSOLL_OK, plimsoll_outstanding(stream, &count));
}

void on_completion(void *context, const plimsoll_completion *completion) {
    auto *reentry = static_cast<Reentry *>(context);
    CHECK(completion->status == PLIMSOLL_COMMITTED);
    reenter(reentry);
    reentry->ends++;
}

void on_apply(void *context, const plimsoll_entry *entry) {
    auto *reentry = static_cast<Reentry *>(context);
    const std::vector<uint8_t> before(entry->bytes, entry->bytes + entry->len);
    reenter(reentry);
    if (++reentry->applied < 100) {
        uint64_t request;
        uint8_t *bytes;
        ANSWERS(PLIMSOLL_OK, plimsoll_submit(reentry->stream, RECORD, LEN, 0, 0, PLIMSOLL_ACKS_QUORUM, &request));
        ANSWERS(PLIMSOLL_OK, plimsoll_reserve(reentry->stream, LEN, &bytes));
        std::memcpy(bytes, entry->bytes, LEN < entry->len ? LEN : entry->len);
        if (reentry->applied % 2 == 0)
            ANSWERS(PLIMSOLL_OK, plimsoll_abandon(reentry->stream));
        else
            ANSWERS(PLIMSOLL_OK, plimsoll_publish(reentry->stream, 0, 0, PLIMSOLL_ACKS_QUORUM, &request));
    }
    CHECK(std::memcmp(before.data(), entry->bytes, entry->len) == 0);
}

void callbacks_come_back(plimsoll_node *node) {
    plimsoll_stream *stream = open(node, 9);
    await_leader(stream);
    Reentry reentry{stream, 0, 0};
    ANSWERS(PLIMSOLL_OK, plimsoll_on_completion(stream, on_completion, &reentry));
    ANSWERS(PLIMSOLL_NULL_ARGUMENT, plimsoll_on_apply(stream, 1, nullptr, &reentry));
    ANSWERS(PLIMSOLL_OK, plimsoll_on_apply(stream, 1, on_apply, &reentry));
    ANSWERS(PLIMSOLL_FOLLOWED, plimsoll_on_apply(stream, 1, on_apply, &reentry));
    while (reentry.applied < 100 || reentry.ends < 99) {
        size_t count;
        ANSWERS(PLIMSOLL_OK, plimsoll_wait(stream, PATIENCE_US));
        ANSWERS(PLIMSOLL_OK, plimsoll_poll(stream, &count));
    }
    ANSWERS(PLIMSOLL_OK, plimsoll_stream_close(stream));
}

// Who is to be told of ends changes while there are some that nobody was told: they are told once, by who is asked last.
void ends_outlive_their_callback(plimsoll_node *node) {
    plimsoll_stream *stream = open(node, 21);
    await_leader(stream);
    std::vector<uint64_t> told;
    const auto on_end = [](void *context, const plimsoll_completion *end) {
        static_cast<std::vector<uint64_t> *>(context)->push_back(end->request);
    };
    uint64_t first, second;
    size_t count;
    const auto collect = [&] {
        // The node answers in a moment; nothing is taken.
        for (int time = 0; time < 20; time++) {
            ANSWERS(PLIMSOLL_OK, plimsoll_completions(stream, nullptr, 0, &count));
            std::this_thread::sleep_for(std::chrono::milliseconds(5));
        }
    };
    ANSWERS(PLIMSOLL_OK, plimsoll_on_completion(stream, on_end, &told));
    ANSWERS(PLIMSOLL_OK, plimsoll_submit(stream, RECORD, LEN, 0, 0, PLIMSOLL_ACKS_QUORUM, &first));
    collect();
    ANSWERS(PLIMSOLL_OK, plimsoll_on_completion(stream, nullptr, nullptr));
    ANSWERS(PLIMSOLL_OK, plimsoll_poll(stream, &count));
    CHECK(completion(stream).request == first && told.empty());
    ANSWERS(PLIMSOLL_OK, plimsoll_submit(stream, RECORD, LEN, 0, 0, PLIMSOLL_ACKS_QUORUM, &second));
    collect();
    ANSWERS(PLIMSOLL_OK, plimsoll_on_completion(stream, on_end, &told));
    while (told.empty()) {
        ANSWERS(PLIMSOLL_OK, plimsoll_wait(stream, PATIENCE_US));
        ANSWERS(PLIMSOLL_OK, plimsoll_poll(stream, &count));
    }
    CHECK(told.size() == 1 && told[0] == second);
    ANSWERS(PLIMSOLL_OK, plimsoll_outstanding(stream, &count));
    CHECK(count == 0);
    ANSWERS(PLIMSOLL_OK, plimsoll_stream_close(stream));
}

void a_replica_comes_back(plimsoll_node *node) {
    plimsoll_replica *replica = nullptr;
    ANSWERS(PLIMSOLL_OK, plimsoll_replica_open(node, 1 << 16, 10, &replica));
    const auto replay = [](void *context, uint32_t, const plimsoll_stamp *, const uint8_t *, size_t) {
        auto *replica = *static_cast<plimsoll_replica **>(context);
        plimsoll_stamp stamp;
        ANSWERS(PLIMSOLL_REENTERED, plimsoll_replica_watermark(replica, &stamp));
        ANSWERS(PLIMSOLL_REENTERED, plimsoll_replica_reattach(replica));
        ANSWERS(PLIMSOLL_REENTERED, plimsoll_replica_close(replica));
        ANSWERS(PLIMSOLL_REENTERED, plimsoll_replica_wait(replica, 0));
    };
    size_t count = 0, given = 0;
    ANSWERS(PLIMSOLL_NULL_ARGUMENT, plimsoll_replica_poll(replica, nullptr, nullptr, &count));
    while (given < 2) {
        ANSWERS(PLIMSOLL_OK, plimsoll_replica_wait(replica, PATIENCE_US));
        ANSWERS(PLIMSOLL_OK, plimsoll_replica_poll(replica, replay, &replica, &count));
        given += count;
    }
    ANSWERS(PLIMSOLL_OK, plimsoll_replica_close(replica));
}

void a_second_thread_is_refused(plimsoll_node *node) {
    plimsoll_stream *stream = open(node, 11);
    await_leader(stream);
    size_t count;
    // The other thread is nearly always in a call, and this one comes between.
    std::atomic<bool> refused{false};
    std::thread other([&] {
        while (!refused) {
            const plimsoll_status waited = plimsoll_wait(stream, 100'000);
            CHECK(waited == PLIMSOLL_OK || waited == PLIMSOLL_TIMED_OUT || waited == PLIMSOLL_REENTERED);
            size_t polled;
            const plimsoll_status status = plimsoll_poll(stream, &polled);
            CHECK(status == PLIMSOLL_OK || status == PLIMSOLL_REENTERED);
        }
    });
    while (!refused) refused = plimsoll_outstanding(stream, &count) == PLIMSOLL_REENTERED;
    other.join();
    CHECK(submitted(stream, 0) == PLIMSOLL_COMMITTED);
    // Threads that contend do no harm to each other: what was taken ends, what was refused does not.
    std::atomic<size_t> taken{0};
    std::vector<std::thread> threads;
    for (int thread = 0; thread < 3; thread++)
        threads.emplace_back([&] {
            for (int round = 0; round < 5000; round++) {
                uint64_t request;
                const plimsoll_status status = plimsoll_submit(stream, RECORD, LEN, 0, 0, PLIMSOLL_ACKS_LEADER, &request);
                if (status == PLIMSOLL_OK) taken++;
                else CHECK(status == PLIMSOLL_REENTERED || status == PLIMSOLL_BUSY);
            }
        });
    for (std::thread &thread : threads) thread.join();
    for (size_t ended = 0; ended < taken; ended++) {
        const plimsoll_status status = completion(stream).status;
        CHECK(status == PLIMSOLL_COMMITTED || status == PLIMSOLL_BUSY);
    }
    ANSWERS(PLIMSOLL_OK, plimsoll_stream_close(stream));
}

// Threads that sleep are told to stop: each once, whenever it comes to sleep.
template <typename Wait>
void is_woken(plimsoll_waker *waker, Wait wait) {
    constexpr int TIMES = 500;
    std::atomic<int> asked{0};
    std::thread sleeper([&] {
        for (int time = 1; time <= TIMES; time++) {
            asked.store(time);
            ANSWERS(PLIMSOLL_WOKEN, wait(PATIENCE_US));
        }
    });
    for (int time = 1; time <= TIMES; time++) {
        while (asked.load() < time) std::this_thread::yield();
        ANSWERS(PLIMSOLL_OK, plimsoll_wake(waker));
    }
    sleeper.join();
    CHECK(wait(0) == PLIMSOLL_TIMED_OUT);
    ANSWERS(PLIMSOLL_OK, plimsoll_wake(waker));
    ANSWERS(PLIMSOLL_OK, plimsoll_wake(waker));
    ANSWERS(PLIMSOLL_WOKEN, wait(0));
    CHECK(wait(0) == PLIMSOLL_TIMED_OUT);
}

void who_waits_is_woken(plimsoll_node *node) {
    plimsoll_stream *stream = open(node, 17);
    await_leader(stream);
    size_t count;
    plimsoll_waker *waker = nullptr;
    ANSWERS(PLIMSOLL_NULL_ARGUMENT, plimsoll_stream_waker(stream, nullptr));
    ANSWERS(PLIMSOLL_OK, plimsoll_stream_waker(stream, &waker));
    while (plimsoll_wait(stream, 50'000) == PLIMSOLL_OK) ANSWERS(PLIMSOLL_OK, plimsoll_completions(stream, nullptr, 0, &count));
    is_woken(waker, [&](uint64_t timeout_us) { return plimsoll_wait(stream, timeout_us); });
    // It is told although there is something to take, and that stays.
    uint64_t request;
    ANSWERS(PLIMSOLL_OK, plimsoll_submit(stream, RECORD, LEN, 0, 0, 2, &request));
    ANSWERS(PLIMSOLL_OK, plimsoll_wait(stream, PATIENCE_US));
    ANSWERS(PLIMSOLL_OK, plimsoll_wake(waker));
    ANSWERS(PLIMSOLL_WOKEN, plimsoll_wait(stream, PATIENCE_US));
    CHECK(completion(stream).request == request);
    ANSWERS(PLIMSOLL_OK, plimsoll_stream_close(stream));
    ANSWERS(PLIMSOLL_OK, plimsoll_wake(waker));
    ANSWERS(PLIMSOLL_OK, plimsoll_waker_close(waker));

    plimsoll_replica *replica = nullptr;
    ANSWERS(PLIMSOLL_OK, plimsoll_replica_open(node, 1 << 16, 18, &replica));
    ANSWERS(PLIMSOLL_NULL_ARGUMENT, plimsoll_replica_waker(replica, nullptr));
    ANSWERS(PLIMSOLL_OK, plimsoll_replica_waker(replica, &waker));
    const auto nobody = [](void *, uint32_t, const plimsoll_stamp *, const uint8_t *, size_t) {};
    while (plimsoll_replica_wait(replica, 50'000) == PLIMSOLL_OK) ANSWERS(PLIMSOLL_OK, plimsoll_replica_poll(replica, nobody, nullptr, &count));
    is_woken(waker, [&](uint64_t timeout_us) { return plimsoll_replica_wait(replica, timeout_us); });
    ANSWERS(PLIMSOLL_OK, plimsoll_replica_close(replica));
    ANSWERS(PLIMSOLL_OK, plimsoll_wake(waker));
    ANSWERS(PLIMSOLL_OK, plimsoll_waker_close(waker));
}

void a_panic_poisons_its_stream_and_no_other(plimsoll_node *node) {
    plimsoll_stream *stream = open(node, 12);
    plimsoll_stream *neighbour = open(node, 13);
    await_leader(neighbour);
    ANSWERS(PLIMSOLL_PANICKED, plimsoll_test_panic(stream));
    CHECK(last_error().find("ordered by a test") != std::string::npos);
    size_t count;
    uint64_t request;
    ANSWERS(PLIMSOLL_PANICKED, plimsoll_poll(stream, &count));
    ANSWERS(PLIMSOLL_PANICKED, plimsoll_submit(stream, RECORD, LEN, 0, 0, 2, &request));
    ANSWERS(PLIMSOLL_PANICKED, plimsoll_wait(stream, 0));
    CHECK(submitted(neighbour, 0) == PLIMSOLL_COMMITTED);
    ANSWERS(PLIMSOLL_OK, plimsoll_stream_close(stream));
    ANSWERS(PLIMSOLL_OK, plimsoll_stream_close(neighbour));
}

// A callback does as it is told after a panic, and closes the stream: the poll that has called it is still to come back.
void a_panic_in_a_callback_closes_nothing_under_its_poll(plimsoll_node *node) {
    plimsoll_stream *stream = open(node, 20);
    await_leader(stream);
    const auto panic = [](void *context, const plimsoll_completion *) {
        auto *stream = *static_cast<plimsoll_stream **>(context);
        ANSWERS(PLIMSOLL_PANICKED, plimsoll_test_panic(stream));
        ANSWERS(PLIMSOLL_REENTERED, plimsoll_stream_close(stream));
    };
    ANSWERS(PLIMSOLL_OK, plimsoll_on_completion(stream, panic, &stream));
    uint64_t request;
    ANSWERS(PLIMSOLL_OK, plimsoll_submit(stream, RECORD, LEN, 0, 0, PLIMSOLL_ACKS_QUORUM, &request));
    size_t count;
    plimsoll_status status = PLIMSOLL_OK;
    while (status == PLIMSOLL_OK) {
        ANSWERS(PLIMSOLL_OK, plimsoll_wait(stream, PATIENCE_US));
        status = plimsoll_poll(stream, &count);
    }
    CHECK(status == PLIMSOLL_PANICKED);
    ANSWERS(PLIMSOLL_OK, plimsoll_stream_close(stream));
}

// Streams outlive their node: what is outstanding ends, and then they have ended. They find the next node again.
void a_node_is_closed_under_its_streams(plimsoll_node *node, const char *config, const char *socket) {
    plimsoll_stream *embedded = open(node, 14);
    const plimsoll_stream_options options = options_of(15);
    plimsoll_stream *attached = nullptr;
    ANSWERS(PLIMSOLL_OK, plimsoll_stream_connect(socket, &options, &attached));
    plimsoll_replica *replica = nullptr;
    ANSWERS(PLIMSOLL_REFUSED_HELD, plimsoll_replica_connect(socket, &options, 1, 1000, &replica));
    ANSWERS(PLIMSOLL_OK, plimsoll_replica_open(node, 1000, 16, &replica));
    await_leader(embedded);
    await_leader(attached);
    uint64_t request;
    uint8_t *bytes;
    size_t count = 0;
    for (plimsoll_stream *stream : {embedded, attached})
        ANSWERS(PLIMSOLL_OK, plimsoll_submit(stream, RECORD, LEN, 0, 0, 2, &request));
    ANSWERS(PLIMSOLL_OK, plimsoll_reserve(embedded, LEN, &bytes));
    ANSWERS(PLIMSOLL_OK, plimsoll_node_close(node));
    std::memcpy(bytes, RECORD, LEN);
    ANSWERS(PLIMSOLL_ENDED, plimsoll_publish(embedded, 0, 0, 2, &request));
    for (plimsoll_stream *stream : {embedded, attached}) {
        const plimsoll_status end = completion(stream).status;
        CHECK(end == PLIMSOLL_COMMITTED || end == PLIMSOLL_STOPPING || end == PLIMSOLL_UNKNOWN);
        plimsoll_status status;
        while ((status = plimsoll_poll(stream, &count)) == PLIMSOLL_OK) {}
        CHECK(status == PLIMSOLL_ENDED);
        ANSWERS(PLIMSOLL_ENDED, plimsoll_submit(stream, RECORD, LEN, 0, 0, 2, &request));
        ANSWERS(PLIMSOLL_ENDED, plimsoll_reserve(stream, LEN, &bytes));
        ANSWERS(PLIMSOLL_ENDED, plimsoll_read_index(stream, &request));
        plimsoll_role role;
        ANSWERS(PLIMSOLL_OK, plimsoll_stream_role(stream, &role));
        CHECK(role.role == PLIMSOLL_ROLE_DETACHED && role.leader == 0);
        CHECK(plimsoll_stream_reattach(stream) != PLIMSOLL_OK);
    }
    const auto nobody = [](void *, uint32_t, const plimsoll_stamp *, const uint8_t *, size_t) {};
    while (plimsoll_replica_poll(replica, nobody, nullptr, &count) == PLIMSOLL_OK) {}
    ANSWERS(PLIMSOLL_ENDED, plimsoll_replica_poll(replica, nobody, nullptr, &count));
    ANSWERS(PLIMSOLL_OK, plimsoll_node_open(config, &node));
    ANSWERS(PLIMSOLL_OK, plimsoll_stream_reattach(attached));
    await_leader(attached);
    // A node of this process is another one when it is opened again.
    CHECK(plimsoll_stream_reattach(embedded) != PLIMSOLL_OK);
    CHECK(plimsoll_replica_reattach(replica) != PLIMSOLL_OK);
    ANSWERS(PLIMSOLL_OK, plimsoll_replica_close(replica));
    ANSWERS(PLIMSOLL_OK, plimsoll_stream_close(attached));
    ANSWERS(PLIMSOLL_OK, plimsoll_stream_close(embedded));
    plimsoll_node *second = nullptr;
    CHECK(plimsoll_node_open(config, &second) != PLIMSOLL_OK && second == nullptr);
    ANSWERS(PLIMSOLL_OK, plimsoll_node_close(node));
}

void without_streams_there_is_no_watermark(const char *config) {
    plimsoll_node *node = nullptr;
    ANSWERS(PLIMSOLL_OK, plimsoll_node_open(config, &node));
    plimsoll_stamp stamp;
    size_t count;
    ANSWERS(PLIMSOLL_NO_STREAMS, plimsoll_node_watermark(node, &stamp));
    ANSWERS(PLIMSOLL_NO_STREAMS, plimsoll_node_vector(node, nullptr, 0, &count));
    CHECK(last_error().find("engine.streams") != std::string::npos);
    plimsoll_stream *stream = open(node, 1);
    plimsoll_role_kind kind = PLIMSOLL_ROLE_DETACHED;
    const auto on_role = [](void *context, const plimsoll_role *role) { *static_cast<plimsoll_role_kind *>(context) = role->role; };
    ANSWERS(PLIMSOLL_OK, plimsoll_on_role(stream, on_role, &kind));
    plimsoll_role role;
    ANSWERS(PLIMSOLL_OK, plimsoll_stream_role(stream, &role));
    CHECK(role.role == PLIMSOLL_ROLE_DETACHED);
    while (kind != PLIMSOLL_ROLE_UNTOLD) {
        ANSWERS(PLIMSOLL_OK, plimsoll_wait(stream, PATIENCE_US));
        ANSWERS(PLIMSOLL_OK, plimsoll_poll(stream, &count));
    }
    ANSWERS(PLIMSOLL_OK, plimsoll_stream_role(stream, &role));
    CHECK(role.role == PLIMSOLL_ROLE_UNTOLD && role.leader == 0 && !role.takes_records);
    await_leader(stream);
    ANSWERS(PLIMSOLL_OK, plimsoll_stream_close(stream));
    ANSWERS(PLIMSOLL_OK, plimsoll_node_close(node));
}

}  // namespace

int main(int argc, char **argv) {
    if (argc != 4) return 2;
    nulls_are_answered();
    texts_fit_where_they_go();
    plimsoll_node *node = nullptr;
    ANSWERS(PLIMSOLL_OK, plimsoll_node_open(argv[1], &node));
    attachments_are_refused(node, argv[2]);
    arguments_are_looked_at(node);
    callbacks_come_back(node);
    outcomes_are_told(node);
    ends_of_epochs_are_told(node);
    ends_outlive_their_callback(node);
    a_replica_comes_back(node);
    a_second_thread_is_refused(node);
    who_waits_is_woken(node);
    a_panic_poisons_its_stream_and_no_other(node);
    a_panic_in_a_callback_closes_nothing_under_its_poll(node);
    a_node_is_closed_under_its_streams(node, argv[1], argv[2]);
    without_streams_there_is_no_watermark(argv[3]);
    return 0;
}
