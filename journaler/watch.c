/* The cell `storage` of the log ring: how much room the disk has (J9), and whether it answers in time (J8). A thread that does
 * nothing else, so that it can tell of a sync that hangs while it hangs. */
#include <sys/statvfs.h>

#include "journal_internal.h"

#define LOOK_NS UINT64_C(20000000)
#define LOOKS_PER_STATVFS 25

static uint32_t room_level(const journal_config_t *config, const struct statvfs *room)
{
    uint64_t available = (uint64_t)room->f_bavail * room->f_frsize;
    /* As df counts: what only root may use is neither free nor part of the whole. */
    uint64_t usable = (uint64_t)(room->f_blocks - room->f_bfree + room->f_bavail) * room->f_frsize;

    if (config->space_enough != 0 && available >= config->space_enough)
        return RING_STORAGE_OK;
    if (available * 100 < usable * config->space_halt)
        return RING_STORAGE_HALT;
    if (available * 100 < usable * config->space_cancel_only)
        return RING_STORAGE_CANCEL_ONLY;
    return available * 100 < usable * config->space_low ? RING_STORAGE_LOW : RING_STORAGE_OK;
}

/* The level by space, and by what prepare.c has run into: a quota stops it while statvfs sees room. */
static uint32_t watch_room(journaler_t *journaler)
{
    struct statvfs room;
    uint32_t level = RING_STORAGE_OK;

    if (fstatvfs(journaler->directory_fd, &room) == 0) {
        uint64_t usable = room.f_blocks - room.f_bfree + room.f_bavail;
        atomic_store_explicit(&journaler->free_permille, usable == 0 ? 0 : room.f_bavail * 1000 / usable, memory_order_relaxed);
        level = room_level(&journaler->config, &room);
    }
    if (atomic_load_explicit(&journaler->halted, memory_order_acquire) != 0 && level < RING_STORAGE_HALT)
        level = prepare_count(journaler) == 0 ? RING_STORAGE_HALT : RING_STORAGE_CANCEL_ONLY;
    return level;
}

static int sync_is_slow(journaler_t *journaler)
{
    uint64_t now = journal_clock(CLOCK_MONOTONIC);
    uint64_t began = atomic_load_explicit(&journaler->sync_began_ns, memory_order_relaxed);

    if (began != 0 && now > began && now - began >= journaler->config.sync_stalled_ns)
        return 1;
    return now < atomic_load_explicit(&journaler->sync_alarm_end_ns, memory_order_relaxed);
}

void watch_slow_sync(journaler_t *journaler, uint64_t now_ns, uint64_t took_ns)
{
    const journal_config_t *config = &journaler->config;
    uint64_t *oldest = &journaler->slow_at_ns[journaler->slow_count % config->sync_slow_count];

    *oldest = now_ns;
    journaler->slow_count++;
    const uint64_t first = journaler->slow_at_ns[journaler->slow_count % config->sync_slow_count];
    int many = journaler->slow_count >= config->sync_slow_count && now_ns - first < config->sync_alarm_ns;
    if (many || took_ns >= config->sync_stalled_ns)
        atomic_store_explicit(&journaler->sync_alarm_end_ns, now_ns + config->sync_alarm_ns, memory_order_relaxed);
}

static void store(journaler_t *journaler, uint32_t level)
{
    uint32_t word = level | (sync_is_slow(journaler) ? RING_STORAGE_SLOW : 0);
    atomic_store_explicit(&journaler->log->header->storage, word, memory_order_relaxed);
}

void watch_step(journaler_t *journaler)
{
    store(journaler, watch_room(journaler));
}

void *watch_main(void *argument)
{
    journaler_t *journaler = argument;

    for (unsigned look = 0; !helper_pause(journaler, LOOK_NS); look++) {
        /* A preparation that found no space is told of at once, the statistics of the filesystem twice a second. */
        if (look % LOOKS_PER_STATVFS == 0 || atomic_load_explicit(&journaler->halted, memory_order_relaxed) != 0)
            watch_step(journaler);
        else
            store(journaler, ring_storage(journaler->log) & RING_STORAGE_LEVEL);
        atomic_fetch_add_explicit(&journaler->looks, 1, memory_order_relaxed);
    }
    return NULL;
}
