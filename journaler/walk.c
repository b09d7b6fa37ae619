#include "walk.h"

#include "crc32c.h"
#include "journal.h"

static const log_slot_t *slot_at(const uint8_t *slots, int64_t index)
{
    return (const log_slot_t *)(const void *)(slots + (uint64_t)index * JOURNAL_SLOT_SIZE);
}

int64_t journal_whole_groups(const uint8_t *slots, int64_t count)
{
    while (count > 0 && (slot_at(slots, count - 1)->flags & SLOT_FLAG_MORE) != 0)
        count--;
    return count;
}

uint64_t journal_log_hash(uint64_t hash, uint64_t sequence, uint64_t epoch, const uint8_t *slots, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        epoch = log_epoch_after(slot_at(slots, i), epoch);
        hash = log_hash_record(hash, sequence + (uint64_t)i, epoch, slot_at(slots, i));
    }
    return hash;
}

static uint32_t batch_crc(const batch_header_t *header, const uint8_t *slots, uint32_t seed)
{
    batch_header_t copy = *header;
    copy.crc32c = 0;
    return crc32c(slots, header->length, crc32c(&copy, sizeof copy, seed));
}

static int batch_shape_ok(const batch_header_t *header, uint64_t offset, uint64_t size)
{
    return header->format == JOURNAL_FORMAT && header->count > 0 &&
           header->length == (uint64_t)header->count * JOURNAL_SLOT_SIZE &&
           header->length <= size - offset - BATCH_HEADER_SIZE;
}

int journal_walk_header(journal_walk_t *walk, const uint8_t *segment, uint64_t size, int adopt)
{
    segment_header_t header;

    if (size < SEGMENT_HEADER_SIZE)
        return 0;
    memcpy(&header, segment, sizeof header);
    uint32_t stored = header.crc32c;
    header.crc32c = 0;
    if (header.magic != SEGMENT_MAGIC || header.format != JOURNAL_FORMAT ||
        crc32c(&header, sizeof header, header.prev_crc) != stored)
        return 0;
    if (adopt) {
        walk->sequence = header.first_seq;
        walk->epoch = header.epoch;
        walk->batch = header.batch;
        walk->log_hash = header.log_hash;
        walk->crc = header.prev_crc;
    }
    walk->offset = SEGMENT_HEADER_SIZE;
    walk->held = 0;
    return header.first_seq == walk->sequence && header.epoch == walk->epoch && header.batch == walk->batch &&
           header.log_hash == walk->log_hash && header.prev_crc == walk->crc;
}

uint32_t journal_walk_batch(journal_walk_t *walk, const uint8_t *data, uint64_t size)
{
    batch_header_t header;

    if (size < BATCH_HEADER_SIZE)
        return journal_first_nonzero(data, size, 0) == size ? WALK_END : WALK_MAGIC;
    memcpy(&header, data, sizeof header);
    const uint8_t *slots = data + BATCH_HEADER_SIZE;
    if (header.magic != BATCH_MAGIC) {
        static const batch_header_t zero;
        return memcmp(&header, &zero, sizeof header) == 0 ? WALK_END : WALK_MAGIC;
    }
    if (!batch_shape_ok(&header, 0, size))
        return WALK_SHAPE;
    if (header.first_seq != walk->sequence || header.batch != walk->batch + 1 || header.prev_crc != walk->crc ||
        header.epoch < walk->epoch)
        return WALK_CHAIN;
    if (batch_crc(&header, slots, walk->crc) != header.crc32c)
        return WALK_CRC;
    if (log_epoch_after(slot_at(slots, 0), walk->epoch) != header.epoch ||
        journal_log_hash(walk->log_hash, header.first_seq, header.epoch, slots, header.count) != header.log_hash)
        return WALK_HASH;
    if ((slot_at(slots, header.count - 1)->flags & SLOT_FLAG_MORE) != 0)
        return WALK_GROUP;
    walk->held = walk->offset;
    walk->held_first = header.first_seq;
    walk->sequence = header.first_seq + header.count;
    walk->epoch = header.epoch;
    walk->batch = header.batch;
    walk->log_hash = header.log_hash;
    walk->crc = header.crc32c;
    walk->ts_ns = header.ts_ns;
    walk->offset += BATCH_HEADER_SIZE + header.length;
    return WALK_ROOM;
}

int64_t journal_walk(journal_walk_t *walk, const uint8_t *segment, uint64_t size, uint64_t limit, uint8_t *out,
                     int64_t out_slots)
{
    int64_t done = 0;

    walk->stop = WALK_ROOM;
    while (walk->want < limit) {
        if (walk->held == 0) {
            uint64_t before = walk->sequence;
            walk->stop = journal_walk_batch(walk, segment + walk->offset, size - walk->offset);
            if (walk->stop != WALK_ROOM)
                return done;
            if (out == NULL) {
                done += (int64_t)(walk->sequence - before);
                walk->want = walk->sequence;
            }
        }
        if (walk->want < walk->held_first)
            walk->want = walk->held_first;
        if (walk->want < walk->sequence) {
            uint64_t end = walk->sequence < limit ? walk->sequence : limit;
            const uint8_t *from =
                segment + walk->held + BATCH_HEADER_SIZE + (walk->want - walk->held_first) * JOURNAL_SLOT_SIZE;
            int64_t count = (int64_t)(end - walk->want);
            int64_t room = out_slots - done;
            if (count > room)
                count = journal_whole_groups(from, room);
            if (count == 0)
                return done;
            memcpy(out + (uint64_t)done * JOURNAL_SLOT_SIZE, from, (uint64_t)count * JOURNAL_SLOT_SIZE);
            done += count;
            walk->want += (uint64_t)count;
            if (walk->want < walk->sequence)
                return done;
        }
        walk->held = 0;
    }
    return done;
}

uint64_t journal_scan(const uint8_t *segment, uint64_t size, uint64_t from, uint64_t batch_min)
{
    batch_header_t header;

    for (uint64_t offset = from; offset + BATCH_HEADER_SIZE <= size; offset += BATCH_HEADER_SIZE) {
        memcpy(&header, segment + offset, sizeof header);
        if (header.magic != BATCH_MAGIC || !batch_shape_ok(&header, offset, size) || header.batch < batch_min)
            continue;
        if ((header.flags & BATCH_FLAG_UNSYNCED) == 0 &&
            batch_crc(&header, segment + offset + BATCH_HEADER_SIZE, header.prev_crc) == header.crc32c)
            return offset;
    }
    return 0;
}

uint64_t journal_first_nonzero(const uint8_t *segment, uint64_t size, uint64_t from)
{
    static const uint8_t zero[4096];
    uint64_t offset = from;

    while (size - offset >= sizeof zero && memcmp(segment + offset, zero, sizeof zero) == 0)
        offset += sizeof zero;
    while (offset < size && segment[offset] == 0)
        offset++;
    return offset;
}

int64_t journal_follow(const ring_t *ring, int64_t sequence, uint8_t *out, int64_t slots_max)
{
    int64_t count = ring_visible(ring) - sequence;

    if (count <= 0)
        return 0;
    if (count > ring_capacity(ring))
        return RING_LAPPED;
    int trimmed = count > slots_max;
    if (trimmed)
        count = slots_max;
    if (ring_read(ring, sequence, count, out) != RING_OK)
        return RING_LAPPED;
    return trimmed ? journal_whole_groups(out, count) : count;
}

void journal_view_ring(const ring_t *ring, journal_ring_view_t *view)
{
    const ring_header_t *header = ring->header;

    view->base = header->base;
    view->mode = header->mode;
    view->capacity = ring_capacity(ring);
    view->cursor = atomic_load_explicit(&header->consumers[JOURNAL_CONSUMER].cursor, memory_order_acquire);
    view->gating = atomic_load_explicit(&header->consumers[JOURNAL_CONSUMER].gating, memory_order_acquire);
    view->panic = atomic_load_explicit(&header->panic, memory_order_acquire);
    view->commit = ring_commit(ring);
    view->visible = ring_visible(ring);
    view->published = ring_published(ring);
    view->claim = atomic_load_explicit(&header->claim, memory_order_acquire);
}
