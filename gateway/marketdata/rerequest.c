/* The re-request server: a MoldUDP64 request is answered with one packet, as many of the wanted messages as fit into it. What is
 * not there, malformed or asked for too often gets no answer: the protocol has none. */
#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "feed_internal.h"

#define REQUESTS_A_STEP 32
#define REQUEST_BUFFER 64

/* IPv4 in the form of IPv6: one table for both. */
static void source_address(const struct sockaddr_storage *from, uint8_t address[LIMITER_ADDRESS_SIZE])
{
    memset(address, 0, LIMITER_ADDRESS_SIZE);
    if (from->ss_family == AF_INET6) {
        memcpy(address, &((const struct sockaddr_in6 *)from)->sin6_addr, LIMITER_ADDRESS_SIZE);
        return;
    }
    memset(address + 10, 0xff, 2);
    memcpy(address + 12, &((const struct sockaddr_in *)from)->sin_addr, 4);
}

static bool allowed(feed_t *feed, const struct sockaddr_storage *from)
{
    uint8_t address[LIMITER_ADDRESS_SIZE], everybody[LIMITER_ADDRESS_SIZE] = {1};
    source_address(from, address);
    if (!limiter_has(&feed->rerequests, address, feed->now_ns) || !limiter_has(&feed->rerequests_all, everybody, feed->now_ns))
        return false;
    limiter_take(&feed->rerequests, address, feed->now_ns);
    limiter_take(&feed->rerequests_all, everybody, feed->now_ns);
    return true;
}

static void answer(feed_t *feed, const uint8_t *request, const struct sockaddr_storage *from, socklen_t from_size)
{
    uint8_t packet[FEED_PACKET_MAX];
    uint64_t first = get_be64(request + 10);
    uint16_t count = get_be16(request + 18);
    feed_channel_t *channel = channel_of_session(feed, (const char *)request);

    if (channel == NULL || first == 0 || first > INT64_MAX || count == 0) {
        feed->counters.rerequests_malformed++;
        return;
    }
    if (!allowed(feed, from)) {
        feed->counters.rerequests_refused++;
        return;
    }
    uint32_t size = channel_pack(feed, channel, (int64_t)first - 1, count, packet, feed->config.packet_size_max);
    if (size == 0) {
        feed->counters.rerequests_refused++;
        return;
    }
    /* A lost answer is like a lost question. */
    (void)!sendto(feed->rerequest_fd, packet, size, MSG_NOSIGNAL, (const struct sockaddr *)from, from_size);
    feed->counters.rerequests++;
}

int64_t rerequest_poll(feed_t *feed)
{
    uint8_t request[REQUEST_BUFFER];
    struct sockaddr_storage from;
    int64_t done = 0;

    while (feed->rerequest_fd >= 0 && done < REQUESTS_A_STEP) {
        socklen_t from_size = sizeof(from);
        ssize_t size = recvfrom(feed->rerequest_fd, request, sizeof(request), MSG_TRUNC, (struct sockaddr *)&from, &from_size);
        if (size < 0)
            break;
        done++;
        if (size == MOLD_REQUEST_SIZE)
            answer(feed, request, &from, from_size);
        else
            feed->counters.rerequests_malformed++;
    }
    return done;
}
