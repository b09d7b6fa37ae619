/* Messages to UDP: packets are filled as slots appear in the rings and leave when nothing more is there to be packed, when they
 * are full, or when their first message has waited `pack_delay_us`. Line A gets each packet before line B. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <unistd.h>

#include "feed_internal.h"

#define SEND_BUFFER_SIZE (4 << 20)
#define END_REPEATS 5

/* ---- destinations ------------------------------------------------------------------------------------------------ */

static int set_interface(int fd, const struct sockaddr_storage *to, const char *interface)
{
    if (interface == NULL)
        return 0;
    if (to->ss_family == AF_INET) {
        struct in_addr address;
        if (inet_pton(AF_INET, interface, &address) != 1)
            return -EINVAL;
        struct sockaddr_in own = {.sin_family = AF_INET, .sin_addr = address};
        if (IN_MULTICAST(ntohl(((const struct sockaddr_in *)to)->sin_addr.s_addr)))
            return setsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &address, sizeof(address)) == 0 ? 0 : -errno;
        return bind(fd, (const struct sockaddr *)&own, sizeof(own)) == 0 ? 0 : -errno;
    }
    struct sockaddr_in6 own = {.sin6_family = AF_INET6};
    if (inet_pton(AF_INET6, interface, &own.sin6_addr) != 1)
        return -EINVAL;
    return bind(fd, (const struct sockaddr *)&own, sizeof(own)) == 0 ? 0 : -errno;
}

static void set_options(int fd, int family, int ttl)
{
    int size = SEND_BUFFER_SIZE;
    /* Best effort: without them packets still leave. */
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    if (family == AF_INET)
        (void)setsockopt(fd, IPPROTO_IP, IP_MULTICAST_TTL, &ttl, sizeof(ttl));
    else
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_MULTICAST_HOPS, &ttl, sizeof(ttl));
}

int feed_add_destination(feed_t *feed, int line, int kinds, const char *address, uint16_t port, const char *interface, int ttl)
{
    struct sockaddr_storage to = {0};
    struct sockaddr_in *four = (struct sockaddr_in *)&to;
    struct sockaddr_in6 *six = (struct sockaddr_in6 *)&to;

    if (feed->destination_count == FEED_DESTINATIONS_MAX)
        return -ENOSPC;
    if (inet_pton(AF_INET, address, &four->sin_addr) == 1) {
        four->sin_family = AF_INET;
        four->sin_port = htons(port);
    } else if (inet_pton(AF_INET6, address, &six->sin6_addr) == 1) {
        six->sin6_family = AF_INET6;
        six->sin6_port = htons(port);
    } else {
        return -EINVAL;
    }
    int fd = socket(to.ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    set_options(fd, to.ss_family, ttl);
    int status = set_interface(fd, &to, interface);
    /* Connected: the kernel looks the route up once, not at every packet. */
    if (status == 0 && connect(fd, (const struct sockaddr *)&to, to.ss_family == AF_INET ? sizeof(*four) : sizeof(*six)) != 0)
        status = -errno;
    if (status != 0) {
        close(fd);
        return status;
    }
    feed->destinations[feed->destination_count++] =
        (feed_destination_t){.fd = fd, .line = (uint8_t)line, .kinds = (uint8_t)kinds};
    return 0;
}

static void send_line(feed_t *feed, uint8_t line, uint8_t kind, const uint8_t *packet, uint32_t size)
{
    for (uint32_t i = 0; i < feed->destination_count; i++) {
        const feed_destination_t *destination = &feed->destinations[i];
        if (destination->line != line || (destination->kinds & kind) == 0)
            continue;
        if (send(destination->fd, packet, size, MSG_NOSIGNAL) == (ssize_t)size) {
            feed->counters.packets++;
            feed->counters.bytes += size;
        } else {
            /* A receiver that is not there (ECONNREFUSED of an earlier packet) or a full socket: lost, like any datagram. */
            feed->counters.send_failures++;
        }
    }
}

static void send_packet(feed_t *feed, uint8_t kind, const uint8_t *packet, uint32_t size)
{
    send_line(feed, 0, kind, packet, size);
    send_line(feed, 1, kind, packet, size);
}

/* ---- packets ----------------------------------------------------------------------------------------------------- */

static void flush(feed_t *feed, feed_channel_t *channel)
{
    uint64_t first = (uint64_t)(channel->next - channel->packet_count) + 1;
    mold_header(channel->packet, channel->session, first, channel->packet_count);
    send_packet(feed, channel->kind, channel->packet, channel->packet_size);
    feed->counters.messages += channel->packet_count;
    channel->packet_size = MOLD_HEADER_SIZE;
    channel->packet_count = 0;
    channel->sent_ns = feed->now_ns;
}

static void add(feed_t *feed, feed_channel_t *channel, const uint8_t *slot)
{
    uint32_t length = slot_message_size(slot, channel->slot_size);
    if (channel->packet_size + MOLD_LENGTH_SIZE + length > feed->config.packet_size_max)
        flush(feed, channel);
    if (channel->packet_count == 0)
        channel->began_ns = feed->now_ns;
    put_be16(channel->packet + channel->packet_size, (uint16_t)length);
    memcpy(channel->packet + channel->packet_size + MOLD_LENGTH_SIZE, slot_message(slot), length);
    channel->packet_size += MOLD_LENGTH_SIZE + length;
    channel->packet_count++;
    channel->next++;
}

static void heartbeat(feed_t *feed, feed_channel_t *channel)
{
    uint8_t packet[MOLD_HEADER_SIZE];
    if (feed->now_ns - channel->sent_ns < feed->config.heartbeat_ms * NS_PER_MS)
        return;
    mold_header(packet, channel->session, (uint64_t)channel->next + 1, 0);
    send_packet(feed, channel->kind, packet, sizeof(packet));
    feed->counters.heartbeats++;
    channel->sent_ns = feed->now_ns;
}

/* New messages of one channel; returns how many, or STAGE_LAPPED. */
static int64_t publish_channel(feed_t *feed, feed_channel_t *channel, int64_t limit)
{
    int64_t published = channel_published(channel), done = 0;

    while (channel->next < published && done < limit) {
        int64_t count = published - channel->next;
        count = count < FEED_BATCH ? count : FEED_BATCH;
        int64_t got = channel_read(feed, channel, channel->next, count, feed->batch);
        if (got == CHANNEL_HOLE) {
            feed->hole_partition = channel->partition;
            feed->hole_first = channel->next;
            return STAGE_LAPPED;
        }
        if (got == CHANNEL_LATER)
            break;
        for (int64_t i = 0; i < got; i++)
            add(feed, channel, feed->batch + i * channel->slot_size);
        done += got;
    }
    if (channel->packet_count > 0 && (feed->config.pack_delay_us == 0 ||
                                      feed->now_ns - channel->began_ns >= feed->config.pack_delay_us * UINT64_C(1000)))
        flush(feed, channel);
    heartbeat(feed, channel);
    return done;
}

/* The reference channel is short and late joiners need all of it: it is repeated without end, as the duplicates they are. */
static void repeat(feed_t *feed, feed_channel_t *channel)
{
    uint8_t packet[FEED_PACKET_MAX];
    int64_t published = channel_published(channel), oldest = channel_oldest(channel);

    if (published == 0 || feed->now_ns - channel->round_ns < feed->config.definitions_ms * NS_PER_MS)
        return;
    channel->round_ns = feed->now_ns;
    if (channel->round >= published || channel->round < oldest) {
        channel->round = oldest;
        feed->counters.rounds++;
    }
    uint32_t size = channel_pack(feed, channel, channel->round, published - channel->round, packet, feed->config.packet_size_max);
    if (size == 0)
        return;
    channel->round += get_be16(packet + 18);
    send_packet(feed, channel->kind, packet, size);
    channel->sent_ns = feed->now_ns;
}

/* ---- ends of sessions -------------------------------------------------------------------------------------------- */

/* Nothing more is sent for it: what has ended beats no longer. */
static void publish_stop(feed_t *feed, feed_channel_t *channel)
{
    for (uint32_t i = 0; i < feed->live_count; i++) {
        if (feed->live[i] != channel)
            continue;
        channel->live = false;
        feed->live[i] = feed->live[--feed->live_count];
        return;
    }
}

void feed_end_session(feed_t *feed, const char *session, uint64_t next)
{
    if (feed->end_count == FEED_ENDS_MAX || strlen(session) != SESSION_SIZE)
        return;
    feed_end_t *end = &feed->ends[feed->end_count++];
    memcpy(end->session, session, SESSION_SIZE);
    /* One of an earlier generation: nobody knows who listens. */
    feed_channel_t *channel = channel_of_session(feed, session);
    end->kind = channel != NULL ? channel->kind : FEED_KINDS;
    publish_stop(feed, channel);
    end->next = next;
    end->due_ns = 0;
    end->left = END_REPEATS;
}

bool feed_ending(const feed_t *feed)
{
    uint32_t left = 0;
    for (uint32_t i = 0; i < feed->end_count; i++)
        left += feed->ends[i].left;
    return left > 0;
}

static void announce_ends(feed_t *feed)
{
    uint8_t packet[MOLD_HEADER_SIZE];
    for (uint32_t i = 0; i < feed->end_count; i++) {
        feed_end_t *end = &feed->ends[i];
        if (end->left == 0 || feed->now_ns < end->due_ns)
            continue;
        mold_header(packet, end->session, end->next, MOLD_END_OF_SESSION);
        send_packet(feed, end->kind, packet, sizeof(packet));
        end->due_ns = feed->now_ns + feed->config.heartbeat_ms * NS_PER_MS;
        end->left--;
    }
}

/* ---- the step ---------------------------------------------------------------------------------------------------- */

void publish_start(feed_t *feed, feed_channel_t *channel, int64_t next)
{
    channel->next = next;
    channel->packet_size = MOLD_HEADER_SIZE;
    channel->packet_count = 0;
    /* The first heartbeat at once: it tells receivers where the channel stands. */
    channel->sent_ns = feed->now_ns - feed->config.heartbeat_ms * NS_PER_MS;
    channel->live = true;
    feed->live[feed->live_count++] = channel;
}

int64_t publish_poll(feed_t *feed, int64_t limit)
{
    int64_t work = 0;
    for (uint32_t i = 0; i < feed->live_count; i++) {
        feed_channel_t *channel = feed->live[i];
        int64_t done = publish_channel(feed, channel, limit);
        if (done < 0)
            return done;
        work += done;
        if (channel->kind == FEED_DEFINITIONS)
            repeat(feed, channel);
    }
    if (feed->end_count > 0)
        announce_ends(feed);
    return work;
}
