/* See feed.h: construction, the step, what can be asked. */
#include "feed.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "feed_internal.h"

#define LOGIN_WINDOW_NS (60 * NS_PER_S)
#define REREQUEST_SOURCES 50 /* as many addresses may ask at their full rate at the same time */

static uint64_t monotonic_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

int fail(feed_t *feed, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(feed->error, sizeof(feed->error), format, arguments);
    va_end(arguments);
    feed->failed = true;
    return STAGE_FAILED;
}

/* ---- construction ------------------------------------------------------------------------------------------------ */

static bool power_of_two(uint64_t value, uint64_t least)
{
    return value >= least && (value & (value - 1)) == 0;
}

static bool config_valid(const feed_config_t *config)
{
    return config->partitions >= 1 && config->partitions <= FEED_PARTITIONS_MAX &&
           strlen(config->generation) == FEED_GENERATION_SIZE && (config->publish & ~FEED_KINDS) == 0 &&
           config->packet_size_max >= MOLD_HEADER_SIZE + MOLD_LENGTH_SIZE + MARKET_HEADER_SIZE + FEED_REFERENCE_BLOCK_MAX &&
           config->packet_size_max <= FEED_PACKET_MAX && config->heartbeat_ms > 0 && config->instruments_max > 0 &&
           config->instruments_max < BULLRING_INSTRUMENT_MAX && power_of_two(config->derived_slots, FEED_DERIVED_SLOTS_MIN) &&
           power_of_two(config->reference_slots, FEED_REFERENCE_SLOTS_MIN) && config->connections_max > 0 && config->connections_max <= 65536 &&
           config->output_size >= 4096 && config->rerequests_per_s > 0 && config->logins_failed_max > 0 &&
           (config->archive == NULL || strlen(config->archive) < FEED_PATH_MAX - 8);
}

static bool allocate(feed_t *feed)
{
    feed_channel_t *reference = &feed->channels[PLACE_REFERENCE];
    channel_open(feed, reference, FEED_REFERENCE, FEED_DEFINITIONS, 0);
    for (int p = 1; p <= feed->config.partitions; p++) {
        channel_open(feed, &feed->channels[PLACE_FULL + p - 1], (uint16_t)p, FEED_FULL, (uint8_t)p);
        channel_open(feed, &feed->channels[PLACE_DERIVED + p - 1], (uint16_t)(FEED_DERIVED_BASE + p), FEED_DERIVED, (uint8_t)p);
        feed->channels[PLACE_FULL + p - 1].slot_size = sizeof(market_slot_t);
        if (feed->config.books != 0 && (feed->books[p] = books_new(feed, p)) == NULL)
            return false;
    }
    for (int i = 0; i < FEED_CHANNELS_MAX; i++) {
        feed_channel_t *channel = &feed->channels[i];
        if (channel->number != 0 && (channel->packet = malloc(feed->config.packet_size_max)) == NULL)
            return false;
    }
    return channel_make_ring(reference, FEED_REFERENCE_SLOT, feed->config.reference_slots) && tcp_allocate(feed);
}

feed_t *feed_new(const feed_config_t *config)
{
    if (!config_valid(config))
        return NULL;
    feed_t *feed = aligned_alloc(CACHE_LINE, (sizeof(feed_t) + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE);
    if (feed == NULL)
        return NULL;
    memset(feed, 0, sizeof(*feed));
    feed->config = *config;
    feed->config.archive = NULL;
    if (config->archive != NULL) {
        snprintf(feed->archive, sizeof(feed->archive), "%s", config->archive);
        feed->config.archive = feed->archive;
    }
    for (int i = 0; i < FEED_CHANNELS_MAX; i++)
        feed->channels[i].archive_fd = -1;
    feed->replay_fd = feed->snapshot_fd = feed->rerequest_fd = -1;
    feed->now_ns = monotonic_ns();
    limiter_init(&feed->rerequests, NS_PER_S / config->rerequests_per_s, config->rerequests_per_s);
    limiter_init(&feed->rerequests_all, NS_PER_S / config->rerequests_per_s / REREQUEST_SOURCES,
                 config->rerequests_per_s * REREQUEST_SOURCES);
    limiter_init(&feed->logins_failed, LOGIN_WINDOW_NS / config->logins_failed_max, config->logins_failed_max);
    feed->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (feed->epoll_fd < 0 || !allocate(feed)) {
        feed_free(feed);
        return NULL;
    }
    return feed;
}

static void close_if_open(int fd)
{
    if (fd >= 0)
        close(fd);
}

void feed_free(feed_t *feed)
{
    if (feed == NULL)
        return;
    tcp_free(feed);
    snapshots_free(feed);
    for (int p = 1; p <= FEED_PARTITIONS_MAX; p++)
        books_free(feed->books[p]);
    for (int i = 0; i < FEED_CHANNELS_MAX; i++)
        channel_close(&feed->channels[i]);
    for (uint32_t i = 0; i < feed->destination_count; i++)
        close(feed->destinations[i].fd);
    close_if_open(feed->replay_fd);
    close_if_open(feed->snapshot_fd);
    close_if_open(feed->rerequest_fd);
    close_if_open(feed->epoll_fd);
    free(feed);
}

void feed_attach(feed_t *feed, int partition, ring_t *market)
{
    INVARIANT(partition >= 1 && partition <= feed->config.partitions);
    INVARIANT(market->slot_size == sizeof(market_slot_t));
    INVARIANT(ring_capacity(market) >= FEED_BATCH);
    feed->channels[PLACE_FULL + partition - 1].ring = market;
}

void feed_start(feed_t *feed)
{
    feed->now_ns = monotonic_ns();
    for (int p = 1; p <= feed->config.partitions; p++) {
        feed_channel_t *channel = &feed->channels[PLACE_FULL + p - 1];
        INVARIANT(channel->ring != NULL);
        int64_t published = channel_published(channel);
        if ((feed->config.publish & FEED_FULL) != 0)
            publish_start(feed, channel, published);
        if (feed->books[p] != NULL)
            feed->books[p]->live_from = published;
    }
    if ((feed->config.publish & FEED_DEFINITIONS) != 0)
        publish_start(feed, &feed->channels[PLACE_REFERENCE], 0);
    feed->started = true;
}

void feed_define(feed_t *feed, const void *message, uint32_t size)
{
    ring_t *ring = feed->channels[PLACE_REFERENCE].ring;
    INVARIANT(size >= MARKET_HEADER_SIZE && size <= MARKET_HEADER_SIZE + FEED_REFERENCE_BLOCK_MAX);
    int64_t index = ring_claim(ring, 1);
    uint8_t *slot = ring_slot(ring, index);
    memset(slot, 0, FEED_REFERENCE_SLOT);
    memcpy(slot + 8, message, size);
    ring_publish(ring, index + 1);
}

/* ---- the step ---------------------------------------------------------------------------------------------------- */

static int64_t books_step(feed_t *feed, int64_t limit)
{
    int64_t work = 0;
    for (int p = 1; p <= feed->config.partitions; p++) {
        feed_books_t *books = feed->books[p];
        if (books == NULL)
            continue;
        int64_t done = books_poll(feed, books, limit);
        if (done < 0)
            return done;
        work += done;
        if (!books->live && books_caught_up(books)) {
            books->live = true;
            if ((feed->config.publish & FEED_DERIVED) != 0)
                publish_start(feed, books->derived, channel_published(books->derived));
        }
    }
    return work;
}

int64_t feed_poll(void *state, int64_t limit)
{
    feed_t *feed = state;
    int64_t books = 0;

    INVARIANT(feed->started);
    if (feed->failed)
        return STAGE_FAILED;
    feed->now_ns = monotonic_ns();
    feed->hole_partition = 0;
    int64_t work = publish_poll(feed, limit);
    if (work >= 0 && feed->config.books != 0)
        books = books_step(feed, work > 0 ? FEED_BOOKS_CHUNK : limit);
    if (work < 0 || books < 0)
        return work < 0 ? work : books;
    work += books;
    if (work == 0 || ++feed->busy_rounds >= FEED_SERVE_ROUNDS) {
        feed->busy_rounds = 0;
        work += snapshot_poll(feed) + tcp_poll(feed);
        if (feed->hole_partition != 0) /* a replay came to it */
            return STAGE_LAPPED;
    }
    return work;
}

void feed_shutdown(feed_t *feed)
{
    tcp_shutdown(feed);
}

/* ---- what can be asked ------------------------------------------------------------------------------------------- */

int feed_epoll_fd(const feed_t *feed)
{
    return feed->epoll_fd;
}

bool feed_hole(const feed_t *feed, int *partition, int64_t *first)
{
    *partition = feed->hole_partition;
    *first = feed->hole_first;
    return feed->hole_partition != 0;
}

bool feed_caught_up(const feed_t *feed)
{
    for (int p = 1; p <= feed->config.partitions; p++)
        if (feed->books[p] != NULL && !books_caught_up(feed->books[p]))
            return false;
    return true;
}

bool feed_position(feed_t *feed, int number, feed_position_t *position)
{
    feed_channel_t *channel = channel_find(feed, (uint32_t)number);
    if (channel == NULL)
        return false;
    position->next = (uint64_t)channel_published(channel) + 1;
    position->oldest = (uint64_t)channel_oldest(channel) + 1;
    position->sent = channel->live ? (uint64_t)channel->next + 1 : 0;
    return true;
}

const char *feed_session(const feed_t *feed, int number)
{
    for (int i = 0; i < FEED_CHANNELS_MAX; i++)
        if (feed->channels[i].number == number && number != 0)
            return feed->channels[i].session;
    return NULL;
}

int64_t feed_packet(feed_t *feed, int number, uint64_t first, uint8_t *packet, uint32_t size)
{
    feed_channel_t *channel = channel_find(feed, (uint32_t)number);
    if (channel == NULL || first == 0)
        return 0;
    return channel_pack(feed, channel, (int64_t)first - 1, MOLD_MESSAGES_MAX, packet, size);
}

static feed_books_t *books_of(feed_t *feed, int partition)
{
    return partition >= 1 && partition <= feed->config.partitions ? feed->books[partition] : NULL;
}

/* Copy slots from message `number` on: up to `count`, a ring at most, none from slot `end` on. 0 = none there yet. */
static int64_t read_before(feed_t *feed, feed_channel_t *channel, uint64_t number, int64_t end, uint32_t count, uint8_t *slots)
{
    int64_t first = (int64_t)number - 1, capacity = ring_capacity(channel->ring), wanted = end - first;
    wanted = wanted < (int64_t)count ? wanted : (int64_t)count;
    wanted = wanted < capacity ? wanted : capacity;
    return wanted > 0 ? channel_read(feed, channel, first, wanted, slots) : 0;
}

int64_t feed_derived(feed_t *feed, int partition, uint64_t number, uint32_t count, void *slots)
{
    feed_books_t *books = books_of(feed, partition);
    if (books == NULL || number == 0)
        return 0;
    int64_t got = read_before(feed, books->derived, number, channel_published(books->derived), count, slots);
    return got > 0 ? got : 0;
}

int64_t feed_levels(feed_t *feed, int partition, uint32_t instrument, uint8_t side, uint32_t count, feed_level_t *levels,
                    uint64_t *update_id)
{
    feed_books_t *books = books_of(feed, partition);
    if (books == NULL || books->event_open || instrument > feed->config.instruments_max)
        return -1;
    bullring_level_walk_t walk = bullring_levels(&books->books, instrument, side);
    const bullring_level_t *level;
    uint32_t found = 0;
    while (found < count && (level = bullring_level_next(&books->books, &walk)) != NULL)
        levels[found++] = (feed_level_t){level->price, level->qty, level->orders};
    *update_id = books->update_ids[instrument];
    return found;
}

bool feed_between_events(feed_t *feed, int partition)
{
    const feed_books_t *books = books_of(feed, partition);
    return books != NULL && !books->event_open;
}

int64_t feed_taken(feed_t *feed, int partition, uint64_t number, uint32_t count, void *slots, uint64_t *next)
{
    feed_books_t *books = books_of(feed, partition);
    if (books == NULL || number == 0)
        return 0;
    *next = (uint64_t)books->position + 1;
    int64_t got = read_before(feed, books->channel, number, books->position, count, slots);
    return got == CHANNEL_HOLE ? -1 : got;
}

int64_t feed_orders(feed_t *feed, int partition, uint32_t instrument, uint8_t side, uint32_t count, feed_order_t *orders,
                    uint64_t *update_id)
{
    feed_books_t *books = books_of(feed, partition);
    if (books == NULL || books->event_open || instrument > feed->config.instruments_max)
        return -1;
    bullring_level_walk_t walk = bullring_levels(&books->books, instrument, side);
    const bullring_level_t *level;
    int64_t found = 0;
    uint32_t at = 0;
    while ((level = bullring_level_next(&books->books, &walk)) != NULL) {
        for (uint32_t index = level->head; index != BULLRING_NONE && at < count; at++) {
            const bullring_order_t *order = bullring_order_at(&books->books, index);
            orders[at] = (feed_order_t){order->id, level->price, order->qty};
            index = order->next;
        }
        found += level->orders;
    }
    *update_id = books->update_ids[instrument];
    return found;
}

const char *feed_error(const feed_t *feed)
{
    return feed->error;
}

const feed_counters_t *feed_counters(const feed_t *feed)
{
    return &feed->counters;
}
