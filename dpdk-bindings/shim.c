/* What of libdpdk cannot be declared from Rust: its static inline functions, and its structs, of which only a few
 * fields are wanted, in flat ones. Nothing here decides anything. */

#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#include <rte_alarm.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_flow.h>
#include <rte_interrupts.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_mbuf.h>
#include <rte_ring.h>

struct plimsoll_port_info {
    char driver[32];
    uint8_t mac[6];
    uint16_t queues_max;
    uint16_t mtu_max;
    uint16_t rx_ring_max;
    uint16_t tx_ring_max;
    int32_t socket;
    uint8_t tx_checksums;
    uint8_t rx_checksums;
};

struct plimsoll_port_counters {
    uint64_t missed;
    uint64_t errors_in;
    uint64_t no_memory;
    uint64_t errors_out;
};

/* The log: every line goes to `sink`, on the thread that writes it. */

typedef void (*plimsoll_sink)(int level, const char *line, size_t len_bytes);

static ssize_t log_write(void *cookie, const char *text, size_t len_bytes)
{
    plimsoll_sink sink;
    memcpy(&sink, &cookie, sizeof sink);
    sink(rte_log_cur_msg_loglevel(), text, len_bytes);
    return (ssize_t)len_bytes;
}

int plimsoll_dpdk_log_to(plimsoll_sink sink)
{
    void *cookie;
    memcpy(&cookie, &sink, sizeof cookie);
    cookie_io_functions_t functions = {.write = log_write};
    FILE *stream = fopencookie(cookie, "w", functions);
    if (stream == NULL)
        return -errno;
    return rte_openlog_stream(stream);
}

int plimsoll_dpdk_log_level(const char *pattern, uint32_t level)
{
    return rte_log_set_level_pattern(pattern, level);
}

int plimsoll_dpdk_errno(void)
{
    return rte_errno;
}

/* Nonzero: this thread has an id among libdpdk's, and with it a cache in every pool. */
int plimsoll_dpdk_thread_known(void)
{
    return rte_lcore_id() != LCORE_ID_ANY;
}

/* Ports. */

#define TX_CHECKSUMS (RTE_ETH_TX_OFFLOAD_IPV4_CKSUM | RTE_ETH_TX_OFFLOAD_UDP_CKSUM)
#define RX_CHECKSUMS (RTE_ETH_RX_OFFLOAD_IPV4_CKSUM | RTE_ETH_RX_OFFLOAD_UDP_CKSUM)

int plimsoll_dpdk_port_info(uint16_t port, struct plimsoll_port_info *out)
{
    struct rte_eth_dev_info info;
    struct rte_ether_addr mac;
    int ret = rte_eth_dev_info_get(port, &info);
    if (ret == 0)
        ret = rte_eth_macaddr_get(port, &mac);
    if (ret != 0)
        return ret;
    memset(out, 0, sizeof *out);
    snprintf(out->driver, sizeof out->driver, "%s", info.driver_name == NULL ? "" : info.driver_name);
    memcpy(out->mac, mac.addr_bytes, sizeof out->mac);
    out->queues_max = RTE_MIN(info.max_rx_queues, info.max_tx_queues);
    out->mtu_max = info.max_mtu;
    uint32_t overhead = RTE_ETHER_HDR_LEN + RTE_ETHER_CRC_LEN;
    if (info.max_rx_pktlen > overhead && info.max_rx_pktlen - overhead < out->mtu_max)
        out->mtu_max = info.max_rx_pktlen - overhead;
    out->rx_ring_max = info.rx_desc_lim.nb_max;
    out->tx_ring_max = info.tx_desc_lim.nb_max;
    out->socket = rte_eth_dev_socket_id(port);
    out->tx_checksums = (info.tx_offload_capa & TX_CHECKSUMS) == TX_CHECKSUMS;
    out->rx_checksums = (info.rx_offload_capa & RX_CHECKSUMS) == RX_CHECKSUMS;
    return 0;
}

/* Sets a stopped port up: as many queues of each direction, and the checksums in hardware that are asked for. */
int plimsoll_dpdk_port_configure(uint16_t port, uint16_t queues, uint16_t mtu, int tx_checksums, int rx_checksums)
{
    struct rte_eth_conf conf;
    memset(&conf, 0, sizeof conf);
    conf.rxmode.mq_mode = RTE_ETH_MQ_RX_NONE;
    conf.rxmode.mtu = mtu;
    conf.rxmode.offloads = rx_checksums ? RX_CHECKSUMS : 0;
    conf.txmode.mq_mode = RTE_ETH_MQ_TX_NONE;
    conf.txmode.offloads = tx_checksums ? TX_CHECKSUMS : 0;
    return rte_eth_dev_configure(port, queues, queues, &conf);
}

/* One queue of each direction. The lengths are lowered to what the port bears and returned. */
int plimsoll_dpdk_queue_setup(uint16_t port, uint16_t queue, uint16_t *rx_ring, uint16_t *tx_ring,
                              struct rte_mempool *pool)
{
    int socket = rte_eth_dev_socket_id(port);
    int ret = rte_eth_dev_adjust_nb_rx_tx_desc(port, rx_ring, tx_ring);
    if (ret == 0)
        ret = rte_eth_rx_queue_setup(port, queue, *rx_ring, socket, NULL, pool);
    if (ret == 0)
        ret = rte_eth_tx_queue_setup(port, queue, *tx_ring, socket, NULL);
    return ret;
}

struct stop {
    uint16_t port;
    int ret;
    int done;
};

static void stop_now(void *of)
{
    struct stop *stop = of;
    stop->ret = rte_eth_dev_stop(stop->port);
    __atomic_store_n(&stop->done, 1, __ATOMIC_RELEASE);
}

/* Stops a port on libdpdk's interrupt thread. The driver of shared memory (memif) takes a connection down there when the
 * other end goes, with nothing that keeps a stop on another thread out, and both of them free it. Where that thread is
 * not to be had within five seconds it is stopped on this one. */
int plimsoll_dpdk_port_stop_in_turn(uint16_t port)
{
    struct stop stop = { .port = port, .ret = 0, .done = 0 };
    if (rte_thread_is_intr() || rte_eal_alarm_set(1, stop_now, &stop) != 0)
        return rte_eth_dev_stop(port);
    for (int waits = 0; !__atomic_load_n(&stop.done, __ATOMIC_ACQUIRE); waits++) {
        if (waits == 100000 && rte_eal_alarm_cancel(stop_now, &stop) > 0)
            return rte_eth_dev_stop(port);
        usleep(50);
    }
    return stop.ret;
}

/* 1: the link is up; 0: down; negative: what was wrong. */
int plimsoll_dpdk_link_up(uint16_t port)
{
    struct rte_eth_link link;
    memset(&link, 0, sizeof link);
    int ret = rte_eth_link_get_nowait(port, &link);
    return ret != 0 ? ret : link.link_status == RTE_ETH_LINK_UP;
}

int plimsoll_dpdk_port_counters(uint16_t port, struct plimsoll_port_counters *out)
{
    struct rte_eth_stats stats;
    int ret = rte_eth_stats_get(port, &stats);
    if (ret != 0)
        return ret;
    out->missed = stats.imissed;
    out->errors_in = stats.ierrors;
    out->no_memory = stats.rx_nombuf;
    out->errors_out = stats.oerrors;
    return 0;
}

/* Asks a started port to put UDP datagrams for one destination port (host order) into one queue. */
int plimsoll_dpdk_steer(uint16_t port, uint16_t udp_port, uint16_t queue, char *why, size_t why_bytes)
{
    struct rte_flow_attr attributes = {.ingress = 1};
    struct rte_flow_item_udp udp = {.hdr.dst_port = rte_cpu_to_be_16(udp_port)};
    struct rte_flow_item_udp mask = {.hdr.dst_port = RTE_BE16(0xffff)};
    struct rte_flow_item pattern[] = {
        {.type = RTE_FLOW_ITEM_TYPE_ETH},
        {.type = RTE_FLOW_ITEM_TYPE_IPV4},
        {.type = RTE_FLOW_ITEM_TYPE_UDP, .spec = &udp, .mask = &mask},
        {.type = RTE_FLOW_ITEM_TYPE_END},
    };
    struct rte_flow_action_queue to = {.index = queue};
    struct rte_flow_action actions[] = {
        {.type = RTE_FLOW_ACTION_TYPE_QUEUE, .conf = &to},
        {.type = RTE_FLOW_ACTION_TYPE_END},
    };
    struct rte_flow_error error = {.message = NULL};
    int ret = rte_flow_validate(port, &attributes, pattern, actions, &error);
    if (ret == 0 && rte_flow_create(port, &attributes, pattern, actions, &error) == NULL)
        ret = rte_errno == 0 ? -EINVAL : -rte_errno;
    if (ret != 0 && why_bytes > 0)
        snprintf(why, why_bytes, "%s", error.message == NULL ? rte_strerror(-ret) : error.message);
    return ret;
}

uint16_t plimsoll_dpdk_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **into, uint16_t count)
{
    return rte_eth_rx_burst(port, queue, into, count);
}

uint16_t plimsoll_dpdk_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **from, uint16_t count)
{
    return rte_eth_tx_burst(port, queue, from, count);
}

/* Buffers. */

/* A pool of buffers with room for `frame_bytes` after the headroom. */
struct rte_mempool *plimsoll_dpdk_pool_create(const char *name, uint32_t count, uint32_t cached, uint16_t frame_bytes,
                                              int socket)
{
    return rte_pktmbuf_pool_create(name, count, cached, 0, RTE_PKTMBUF_HEADROOM + frame_bytes, socket);
}

struct rte_mbuf *plimsoll_dpdk_mbuf_alloc(struct rte_mempool *pool)
{
    return rte_pktmbuf_alloc(pool);
}

void plimsoll_dpdk_mbuf_free(struct rte_mbuf *mbuf)
{
    rte_pktmbuf_free(mbuf);
}

/* Makes a one-segment buffer longer at its end; the new bytes, or NULL when there is no room. */
uint8_t *plimsoll_dpdk_mbuf_append(struct rte_mbuf *mbuf, uint16_t len_bytes)
{
    return (uint8_t *)rte_pktmbuf_append(mbuf, len_bytes);
}

/* The first segment's bytes; `whole` is 1 when there is no other segment. */
const uint8_t *plimsoll_dpdk_mbuf_data(const struct rte_mbuf *mbuf, uint16_t *len_bytes, int *whole)
{
    *len_bytes = rte_pktmbuf_data_len(mbuf);
    *whole = mbuf->nb_segs == 1;
    return rte_pktmbuf_mtod(mbuf, const uint8_t *);
}

/* The port that a frame came from. */
uint16_t plimsoll_dpdk_mbuf_port(const struct rte_mbuf *mbuf)
{
    return mbuf->port;
}

void plimsoll_dpdk_mbuf_set_port(struct rte_mbuf *mbuf, uint16_t port)
{
    mbuf->port = port;
}

/* What the port says of a received frame's checksums: 1 the header's holds, 2 it does not, 4 UDP's holds, 8 it does
 * not. Neither bit: the port has not looked. */
int plimsoll_dpdk_mbuf_checksums(const struct rte_mbuf *mbuf)
{
    uint64_t ip = mbuf->ol_flags & RTE_MBUF_F_RX_IP_CKSUM_MASK;
    uint64_t udp = mbuf->ol_flags & RTE_MBUF_F_RX_L4_CKSUM_MASK;
    int said = 0;
    if (ip == RTE_MBUF_F_RX_IP_CKSUM_GOOD)
        said |= 1;
    if (ip == RTE_MBUF_F_RX_IP_CKSUM_BAD)
        said |= 2;
    if (udp == RTE_MBUF_F_RX_L4_CKSUM_GOOD)
        said |= 4;
    if (udp == RTE_MBUF_F_RX_L4_CKSUM_BAD)
        said |= 8;
    return said;
}

/* Leaves both checksums of an outgoing frame to the port. UDP's field holds the sum of the pseudo header. */
void plimsoll_dpdk_mbuf_offload(struct rte_mbuf *mbuf, uint16_t ethernet_bytes, uint16_t ip_bytes)
{
    mbuf->l2_len = ethernet_bytes;
    mbuf->l3_len = ip_bytes;
    mbuf->ol_flags |= RTE_MBUF_F_TX_IPV4 | RTE_MBUF_F_TX_IP_CKSUM | RTE_MBUF_F_TX_UDP_CKSUM;
}

/* Rings that hand buffers from any lane to one. */

struct rte_ring *plimsoll_dpdk_ring_create(const char *name, uint32_t count, int socket)
{
    return rte_ring_create(name, count, socket, RING_F_SC_DEQ | RING_F_EXACT_SZ);
}

/* 0: taken; negative: the ring is full. */
int plimsoll_dpdk_ring_enqueue(struct rte_ring *ring, struct rte_mbuf *mbuf)
{
    return rte_ring_mp_enqueue(ring, mbuf);
}

uint32_t plimsoll_dpdk_ring_dequeue(struct rte_ring *ring, struct rte_mbuf **into, uint32_t count)
{
    return rte_ring_sc_dequeue_burst(ring, (void **)into, count, NULL);
}
