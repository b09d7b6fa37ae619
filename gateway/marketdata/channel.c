/* A channel: a ring of messages, and the archive of what the ring has forgotten. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "feed_internal.h"

void channel_open(feed_t *feed, feed_channel_t *channel, uint16_t number, uint8_t kind, uint8_t partition)
{
    channel->number = number;
    channel->kind = kind;
    channel->partition = partition;
    channel->archive_fd = -1;
    snprintf(channel->session, sizeof(channel->session), "BR%03u%.*s", (unsigned)number % 1000u, FEED_GENERATION_SIZE,
             feed->config.generation);
    if (kind == FEED_FULL && feed->config.archive != NULL)
        snprintf(channel->archive_path, sizeof(channel->archive_path), "%.*s/%u", FEED_PATH_MAX - 8, feed->archive,
                 (unsigned)partition);
}

/* A ring on memory of this process: derived and reference channels. */
bool channel_make_ring(feed_channel_t *channel, uint32_t slot_size, uint64_t slots)
{
    channel->memory_size = RING_HEADER_SIZE + slot_size * slots;
    channel->memory = mmap(NULL, channel->memory_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (channel->memory == MAP_FAILED) {
        channel->memory = NULL;
        return false;
    }
    ring_format(channel->memory, slot_size, slots, 0, RING_MODE_PLAIN, 0);
    ring_attach(&channel->own, channel->memory, NULL);
    channel->ring = &channel->own;
    channel->slot_size = slot_size;
    return true;
}

void channel_close(feed_channel_t *channel)
{
    if (channel->archive_fd >= 0)
        close(channel->archive_fd);
    if (channel->memory != NULL)
        munmap(channel->memory, channel->memory_size);
    free(channel->packet);
}

feed_channel_t *channel_find(feed_t *feed, uint32_t number)
{
    for (uint32_t i = 0; i < FEED_CHANNELS_MAX; i++)
        if (feed->channels[i].number == number && feed->channels[i].ring != NULL)
            return &feed->channels[i];
    return NULL;
}

/* By a session's full name, or by its first five characters with spaces behind: whoever does not know the generation yet. No name
 * at all is the first channel. */
feed_channel_t *channel_of_session(feed_t *feed, const char session[SESSION_SIZE])
{
    static const char blank[SESSION_SIZE + 1] = "          ";
    size_t known = SESSION_SIZE - FEED_GENERATION_SIZE;

    if (memcmp(session, blank, SESSION_SIZE) == 0)
        return channel_find(feed, 1);
    for (uint32_t i = 0; i < FEED_CHANNELS_MAX; i++) {
        feed_channel_t *channel = &feed->channels[i];
        bool short_name = memcmp(session + known, blank, FEED_GENERATION_SIZE) == 0;
        if (channel->ring != NULL && memcmp(session, channel->session, short_name ? known : SESSION_SIZE) == 0)
            return channel;
    }
    return NULL;
}

static bool archive_open(feed_channel_t *channel)
{
    if (channel->archive_fd < 0 && channel->archive_path[0] != 0)
        channel->archive_fd = open(channel->archive_path, O_RDONLY | O_CLOEXEC);
    return channel->archive_fd >= 0;
}

static int64_t archive_slots(const feed_channel_t *channel)
{
    struct stat status;
    return fstat(channel->archive_fd, &status) == 0 ? (int64_t)status.st_size / channel->slot_size : 0;
}

/* The slots of the archive from `index` on, up to the first that is missing: zeros. */
static int64_t archive_read(feed_channel_t *channel, int64_t index, int64_t count, uint8_t *out)
{
    if (!archive_open(channel))
        return channel->archive_path[0] != 0 ? CHANNEL_LATER : CHANNEL_HOLE;
    ssize_t got = pread(channel->archive_fd, out, (size_t)count * channel->slot_size, (off_t)index * channel->slot_size);
    int64_t slots = got > 0 ? got / (ssize_t)channel->slot_size : 0;
    for (int64_t i = 0; i < slots; i++)
        if (slot_template(out + i * channel->slot_size) == 0)
            slots = i;
    if (slots > 0)
        return slots;
    return archive_slots(channel) > index ? CHANNEL_HOLE : CHANNEL_LATER;
}

int64_t channel_read(feed_t *feed, feed_channel_t *channel, int64_t index, int64_t count, uint8_t *out)
{
    ring_t *ring = channel->ring;
    INVARIANT(count <= ring_capacity(ring));
    if (LIKELY(ring_read(ring, index, count, out) == RING_OK))
        return count;
    feed->counters.laps++;
    return archive_read(channel, index, count, out);
}

/* Derived and reference channels have no archive; a market ring's is whole from 0 on, or has holes where a reader will find out. */
int64_t channel_oldest(feed_channel_t *channel)
{
    const ring_header_t *header = channel->ring->header;
    int64_t claim = atomic_load_explicit(&header->claim, memory_order_relaxed);
    int64_t oldest = claim - ring_capacity(channel->ring);
    if (archive_open(channel))
        return 0;
    return oldest > header->base ? oldest : header->base;
}

uint32_t channel_pack(feed_t *feed, feed_channel_t *channel, int64_t index, int64_t count_max, uint8_t *packet, uint32_t size)
{
    int64_t published = channel_published(channel);
    uint32_t used = MOLD_HEADER_SIZE;
    uint16_t count = 0;

    if (index < 0 || size < MOLD_HEADER_SIZE)
        return 0;
    count_max = count_max < published - index ? count_max : published - index;
    count_max = count_max < (int64_t)MOLD_MESSAGES_MAX ? count_max : (int64_t)MOLD_MESSAGES_MAX;
    for (bool full = false; !full && count < count_max;) {
        int64_t wanted = count_max - count < FEED_BATCH ? count_max - count : FEED_BATCH;
        int64_t got = channel_read(feed, channel, index + count, wanted, feed->batch);
        for (int64_t i = 0; i < got; i++) {
            const uint8_t *slot = feed->batch + i * channel->slot_size;
            uint32_t length = slot_message_size(slot, channel->slot_size);
            full = used + MOLD_LENGTH_SIZE + length > size;
            if (full)
                break;
            put_be16(packet + used, (uint16_t)length);
            memcpy(packet + used + MOLD_LENGTH_SIZE, slot_message(slot), length);
            used += MOLD_LENGTH_SIZE + length;
            count++;
        }
        full |= got <= 0;
    }
    if (count == 0)
        return 0;
    mold_header(packet, channel->session, (uint64_t)index + 1, count);
    return used;
}
