// A transaction engine in miniature: two streams, whose records are safe when the watermark covers them.
//
//   engine embed CONFIG             the node runs in this process
//   engine attach SOCKET CLUSTER    the node runs already, as `plimsoll node --config CONFIG`, with engine.socket =
//   SOCKET
//
// The configuration has two shards or more and engine.streams = true, and its log is fresh. Its only node must come to
// lead: this example does not look for the leader elsewhere. Exits with 0 if everything was as it should be.
//
//   c++ -std=c++17 engine.cpp $(pkg-config --cflags --libs plimsoll)

#include <plimsoll.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr uint64_t RECORDS = 1000;
constexpr uint64_t PATIENCE_US = 20'000'000;
constexpr uint64_t REPLICA_SESSION = 99;
constexpr uint32_t STREAMS = 2;

// A call that must succeed; what else it answers is told in words by the library.
void must(plimsoll_status status, const char *what) {
    if (status == PLIMSOLL_OK) return;
    char text[512];
    plimsoll_last_error(text, sizeof text);
    std::fprintf(stderr, "%s: %s (%s)\n", what, text, plimsoll_status_text(status));
    std::exit(1);
}

void check(bool holds, const char *what) {
    if (holds) return;
    std::fprintf(stderr, "this does not hold: %s\n", what);
    std::exit(1);
}

bool is_at_least(plimsoll_stamp stamp, plimsoll_stamp other) {
    return stamp.epoch != other.epoch ? stamp.epoch > other.epoch : stamp.timestamp >= other.timestamp;
}

// Of an earlier epoch a watermark says nothing: plimsoll_stream_epoch_closed tells what of that lives.
bool covers(plimsoll_stamp watermark, plimsoll_stamp stamp) {
    return watermark.epoch == stamp.epoch && watermark.timestamp >= stamp.timestamp;
}

// What this program has of one stream. In an engine each is its own thread's; here one thread has both.
struct Stream {
    plimsoll_stream *handle = nullptr;
    uint32_t shard = 0;
    plimsoll_role role{};
    plimsoll_stamp watermark{};
    uint64_t next_timestamp = 0;  // of the record that is submitted next
    uint64_t committed = 0;
    uint64_t applied = 0;
    uint64_t asked = UINT64_MAX;  // the request of write_down, and how it has ended
    plimsoll_status answer = PLIMSOLL_OK;

    void open(plimsoll_node *node, const char *socket, const char *cluster) {
        plimsoll_stream_options options;
        must(plimsoll_stream_options_init(&options, sizeof options), "options");
        options.shard = shard;
        options.session = 1;  // one engine; a session may be attached to every shard once
        options.cluster = cluster;
        if (node != nullptr) {
            must(plimsoll_stream_open(node, &options, &handle), "open");
        } else {
            // The node may be starting.
            plimsoll_status status;
            for (int tries = 0; (status = plimsoll_stream_connect(socket, &options, &handle)) == PLIMSOLL_UNREACHABLE && tries < 1000; tries++)
                std::this_thread::sleep_for(std::chrono::milliseconds(20));
            must(status, "connect");
        }
        // All four are called by plimsoll_poll, on the thread that calls it.
        must(plimsoll_on_role(handle, on_role, this), "on_role");
        must(plimsoll_on_watermark(handle, on_watermark, this), "on_watermark");
        must(plimsoll_on_completion(handle, on_completion, this), "on_completion");
        must(plimsoll_on_apply(handle, 1, on_apply, this), "on_apply");
    }

    // Writes a record in the ring itself: nothing is copied on the way to the log.
    void submit_in_place() {
        char text[32];
        const int len = std::snprintf(text, sizeof text, "%u/%llu", shard, static_cast<unsigned long long>(next_timestamp));
        uint8_t *room;
        const plimsoll_status status = plimsoll_reserve(handle, static_cast<size_t>(len), &room);
        if (status == PLIMSOLL_BUSY) return;  // the ring is full: it is polled, and this comes again
        must(status, "reserve");
        std::memcpy(room, text, static_cast<size_t>(len));
        uint64_t request;
        must(plimsoll_publish(handle, next_timestamp, role.epoch, PLIMSOLL_ACKS_QUORUM, &request), "publish");
        next_timestamp++;
    }

    static void on_role(void *context, const plimsoll_role *role) {
        auto *stream = static_cast<Stream *>(context);
        stream->role = *role;
        std::printf("stream %u: role %u, epoch %u%s\n", stream->shard, static_cast<unsigned>(role->role), role->epoch, role->takes_records ? ", takes records" : "");
    }

    static void on_watermark(void *context, const plimsoll_stamp *watermark) {
        auto *stream = static_cast<Stream *>(context);
        check(is_at_least(*watermark, stream->watermark), "a watermark never goes back");
        stream->watermark = *watermark;
    }

    static void on_completion(void *context, const plimsoll_completion *completion) {
        auto *stream = static_cast<Stream *>(context);
        if (completion->request == stream->asked) {
            stream->answer = completion->status;
        } else {
            check(completion->status == PLIMSOLL_COMMITTED, "every record is committed");
            stream->committed++;
        }
    }

    // Called for each committed record, in the order of the log. A callback may submit: so does Mako's measurement.
    static void on_apply(void *context, const plimsoll_entry *entry) {
        auto *stream = static_cast<Stream *>(context);
        stream->applied++;
        check(entry->stamp.timestamp == stream->applied, "records come in order");
        const std::string text = std::to_string(stream->shard) + "/" + std::to_string(stream->applied);
        check(entry->len == text.size() && std::memcmp(entry->bytes, text.data(), entry->len) == 0, "records come as submitted");
        if (stream->next_timestamp <= RECORDS) stream->submit_in_place();
    }
};

// Polls until something holds.
template <typename Done>
void poll_until(std::vector<Stream> &streams, const char *what, Done done) {
    const auto until = std::chrono::steady_clock::now() + std::chrono::microseconds(PATIENCE_US);
    while (!done()) {
        check(std::chrono::steady_clock::now() < until, what);
        for (Stream &stream : streams) {
            // An engine that has nothing else to do waits; it spins first, then sleeps.
            const plimsoll_status waited = plimsoll_wait(stream.handle, 1000);
            check(waited == PLIMSOLL_OK || waited == PLIMSOLL_TIMED_OUT, "waiting works");
            size_t count;
            must(plimsoll_poll(stream.handle, &count), "poll");
        }
    }
}

// Asks for something that is written down of a stream, and waits until it is.
template <typename Ask>
void write_down(std::vector<Stream> &streams, Stream &stream, const char *what, Ask ask) {
    must(ask(&stream.asked), what);
    poll_until(streams, what, [&] { return stream.answer != PLIMSOLL_OK; });
    check(stream.answer == PLIMSOLL_COMMITTED, what);
    stream.answer = PLIMSOLL_OK;
    stream.asked = UINT64_MAX;
}

// What a replica was given of each stream.
struct Replayed {
    std::map<uint32_t, uint64_t> last;

    static void take(void *context, uint32_t shard, const plimsoll_stamp *stamp, const uint8_t *, size_t len) {
        auto *replayed = static_cast<Replayed *>(context);
        check(stamp->timestamp == replayed->last[shard] + 1 && len > 0, "a replica replays each stream in its order");
        replayed->last[shard] = stamp->timestamp;
    }
};

void replay(plimsoll_node *node, const char *socket, const char *cluster) {
    plimsoll_replica *replica;
    if (node != nullptr) {
        must(plimsoll_replica_open(node, 1 << 20, REPLICA_SESSION, &replica), "open a replica");
    } else {
        plimsoll_stream_options options;
        must(plimsoll_stream_options_init(&options, sizeof options), "options");
        options.session = REPLICA_SESSION;
        options.cluster = cluster;
        must(plimsoll_replica_connect(socket, &options, STREAMS, 1 << 20, &replica), "connect a replica");
    }
    Replayed replayed;
    const auto until = std::chrono::steady_clock::now() + std::chrono::microseconds(PATIENCE_US);
    while (replayed.last[0] < RECORDS || replayed.last[1] < RECORDS) {
        check(std::chrono::steady_clock::now() < until, "a replica replays everything");
        const plimsoll_status waited = plimsoll_replica_wait(replica, 100'000);
        check(waited == PLIMSOLL_OK || waited == PLIMSOLL_TIMED_OUT, "waiting for a replica works");
        size_t count;
        must(plimsoll_replica_poll(replica, Replayed::take, &replayed, &count), "poll a replica");
    }
    plimsoll_stamp watermark;
    must(plimsoll_replica_watermark(replica, &watermark), "a replica's watermark");
    check(covers(watermark, plimsoll_stamp{RECORDS, 0, 0}), "nothing was replayed beyond the watermark");
    must(plimsoll_replica_close(replica), "close a replica");
}

}  // namespace

int main(int argc, char **argv) {
    const bool embed = argc == 3 && std::strcmp(argv[1], "embed") == 0;
    if (!embed && !(argc == 4 && std::strcmp(argv[1], "attach") == 0)) {
        std::fprintf(stderr, "usage: %s embed CONFIG | attach SOCKET CLUSTER\n", argv[0]);
        return 2;
    }
    const char *socket = embed ? nullptr : argv[2];
    const char *cluster = embed ? nullptr : argv[3];
    plimsoll_node *node = nullptr;
    if (embed) must(plimsoll_node_open(argv[2], &node), "start the node");

    std::vector<Stream> streams(STREAMS);
    for (uint32_t shard = 0; shard < STREAMS; shard++) {
        streams[shard].shard = shard;
        streams[shard].open(node, socket, cluster);
    }
    poll_until(streams, "the node comes to lead", [&] {
        return streams[0].role.role == PLIMSOLL_ROLE_LEADER && streams[1].role.role == PLIMSOLL_ROLE_LEADER;
    });
    // The registrar is the stream of shard 0: it registers itself, then the others.
    for (uint32_t shard = 0; shard < STREAMS; shard++)
        write_down(streams, streams[0], "register", [&](uint64_t *request) { return plimsoll_register_stream(streams[0].handle, shard, request); });
    poll_until(streams, "the streams take records", [&] { return streams[0].role.takes_records && streams[1].role.takes_records; });

    // The first record of each is submitted here, each further one when the one before was applied.
    for (Stream &stream : streams) {
        stream.next_timestamp = 1;
        stream.submit_in_place();
    }
    const plimsoll_stamp last{RECORDS, streams[0].role.epoch, 0};
    poll_until(streams, "everything is committed and covered by the watermark", [&] {
        return streams[0].committed == RECORDS && streams[1].committed == RECORDS && streams[0].applied == RECORDS &&
               streams[1].applied == RECORDS && covers(streams[0].watermark, last) && covers(streams[1].watermark, last);
    });

    // A stream that has nothing to submit says so, and holds nobody back.
    write_down(streams, streams[1], "advance", [&](uint64_t *request) { return plimsoll_advance(streams[1].handle, RECORDS + 50, last.epoch, request); });
    if (embed) {
        plimsoll_stamp watermark;
        must(plimsoll_node_watermark(node, &watermark), "the node's watermark");
        plimsoll_stream_stamp vector[STREAMS];
        size_t count;
        must(plimsoll_node_vector(node, vector, STREAMS, &count), "the node's vector");
        check(count == STREAMS && vector[1].stamp.timestamp == RECORDS + 50 && covers(watermark, last), "the node knows where the streams stand");
    }
    replay(node, socket, cluster);

    // Taken as soon as they are told: the watermark that this program has seen last.
    for (Stream &stream : streams) {
        size_t outstanding;
        must(plimsoll_outstanding(stream.handle, &outstanding), "outstanding");
        check(outstanding == 0, "everything has ended");
        std::printf("stream %u: %llu records committed, watermark %u.%llu\n", stream.shard, static_cast<unsigned long long>(stream.committed),
                    stream.watermark.epoch, static_cast<unsigned long long>(stream.watermark.timestamp));
        must(plimsoll_stream_close(stream.handle), "close");
    }
    must(plimsoll_node_close(node), "stop the node");
    std::printf("all is well with Plimsoll %s\n", plimsoll_version());
    return 0;
}
