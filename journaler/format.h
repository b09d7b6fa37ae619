/* Bytes of the journal, format 1. Little-endian; all sizes are multiples of 64.
 *
 * A directory holds
 *   segment-<first sequence, 20 digits>.log   one fixed, pre-zeroed size; the log in order
 *   spare-<number>.zero                       all zero, prepared ahead; becomes the next segment by rename
 *   segment-<first sequence>.audit            text, the audit chain up to the end of a closed segment (audit.c, J2)
 *   durable.mark                              two 512-byte slots, written in turn, behind (J5)
 *   trimmed                                   `first N`: retention may have deleted the records below N, nobody else may
 *   consumers/<name>                          next sequence a reader of the files needs (cursors.py)
 *   panic                                     text; there after a failed write or sync until an operator has verified (J8)
 *   reports/<partition>                       report slots, offset = report sequence * 128
 *
 * Segment: a header of 512 bytes, then batches one after the other, then zeros. The header of a segment is written together
 * with its first batch, so a segment without any batch is all zero.
 *
 * Batch (RELIABILITY section 3): a header of 64 bytes, then `count` log slots of 128 bytes. Written by the journaler alone, by
 * one pwritev; in D1 synced before the next one is begun, so at most one batch is un-synced at any time (J3).
 *
 * crc32c of a batch covers header (crc32c = 0) and slots and is seeded with the crc of the batch before it, which prev_crc
 * repeats: a stale, swapped or repeated batch does not validate (J1). The segment header's own crc is seeded likewise but
 * is not part of the chain. prev_crc and log hash before sequence 0 are 0. Batches are numbered from 1.
 *
 * log_hash is the identity of the log: a running hash over (sequence, epoch, slot) of every record up to the batch's end. It
 * knows nothing of batches and segments, so two nodes can compare it (CORE section 9). The epoch of a record is the largest
 * one named by an EpochStart record up to and including it; a batch holds records of one epoch only. A batch never ends
 * inside a linked group. */
#ifndef BULLRING_JOURNAL_FORMAT_H
#define BULLRING_JOURNAL_FORMAT_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "orders.h"
#include "platform.h"
#include "slots.h"

#define JOURNAL_FORMAT 1
#define JOURNAL_SLOT_SIZE 128
#define BATCH_HEADER_SIZE 64
#define SEGMENT_HEADER_SIZE 512
#define MARK_SLOT_SIZE 512
#define BATCH_MAGIC UINT32_C(0x4a524e4c)                /* "LNRJ" */
#define SEGMENT_MAGIC UINT64_C(0x314c4e524a4c4c42)      /* "BLLJRNL1" */
#define MARK_MAGIC UINT64_C(0x314b524d4a4c4c42)         /* "BLLJMRK1" */

enum batch_flag {
    BATCH_FLAG_UNSYNCED = 1u << 0, /* D0: later batches may follow it without its ever having been synced */
};

typedef struct batch_header {
    uint32_t magic;
    uint32_t length; /* of the slots, in bytes */
    uint32_t crc32c;
    uint16_t flags;
    uint16_t format;
    uint64_t first_seq;
    uint32_t count;
    uint32_t prev_crc;
    uint64_t epoch;
    uint64_t batch;
    uint64_t log_hash; /* after the last slot of this batch */
    uint64_t ts_ns;    /* real time of the write; local to this node */
} batch_header_t;

_Static_assert(sizeof(batch_header_t) == BATCH_HEADER_SIZE, "format 1");
_Static_assert(offsetof(batch_header_t, flags) == 12, "format 1");
_Static_assert(offsetof(batch_header_t, first_seq) == 16, "format 1");
_Static_assert(offsetof(batch_header_t, epoch) == 32, "format 1");
_Static_assert(offsetof(batch_header_t, ts_ns) == 56, "format 1");
_Static_assert(sizeof(log_slot_t) == JOURNAL_SLOT_SIZE, "format 1");

typedef struct segment_header {
    uint64_t magic;
    uint32_t format;
    uint32_t crc32c;
    uint64_t first_seq;
    uint64_t epoch;    /* of the record before first_seq, 0 if there is none; so for batch, log_hash, prev_crc */
    uint64_t batch;
    uint64_t log_hash;
    uint32_t prev_crc;
    uint32_t node;
    uint64_t cluster;
    uint64_t schema_hash;
    uint64_t segment_size;
    uint64_t ts_ns;
    uint8_t spare[424];
} segment_header_t;

_Static_assert(sizeof(segment_header_t) == SEGMENT_HEADER_SIZE, "format 1");
_Static_assert(offsetof(segment_header_t, prev_crc) == 48, "format 1");
_Static_assert(offsetof(segment_header_t, spare) == 88, "format 1");

typedef struct mark_slot {
    uint64_t magic;
    uint32_t format;
    uint32_t crc32c;   /* of this slot with crc32c = 0, seed 0 */
    uint64_t counter;  /* the valid slot with the larger counter counts; counter & 1 is its place */
    uint64_t sequence; /* everything below is durable; the end of a batch */
    uint64_t epoch;
    uint64_t batch;
    uint64_t log_hash;
    uint32_t crc;      /* of that batch */
    uint32_t node;
    uint64_t cluster;
    uint64_t segment_first;
    uint64_t offset;   /* in that segment, of the end of the batch */
    uint64_t ts_ns;
    uint8_t spare[416];
} mark_slot_t;

_Static_assert(sizeof(mark_slot_t) == MARK_SLOT_SIZE, "format 1");
_Static_assert(offsetof(mark_slot_t, crc) == 56, "format 1");
_Static_assert(offsetof(mark_slot_t, spare) == 96, "format 1");

/* Odd random constants of the log hash; changing one changes the format. */
#define LOG_HASH_SEQUENCE UINT64_C(0x9e3779b97f4a7c15)
#define LOG_HASH_EPOCH UINT64_C(0xd1b54a32d192ed03)
#define LOG_HASH_FINAL UINT64_C(0x8cb92ba72f3d8dd7)

static inline uint64_t log_hash_fold(uint64_t a, uint64_t b)
{
    uint128_t product = (uint128_t)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* One record. The nine products do not wait for one another: about 8 ns. */
static inline uint64_t log_hash_record(uint64_t hash, uint64_t sequence, uint64_t epoch, const void *slot)
{
    static const uint64_t key[16] = {
        UINT64_C(0xa0761d6478bd642f), UINT64_C(0xe7037ed1a0b428db), UINT64_C(0x8ebc6af09c88c6e3), UINT64_C(0x589965cc75374cc3),
        UINT64_C(0x1d8e4e27c47d124f), UINT64_C(0xeb44accab455d165), UINT64_C(0x9c6e6877736c46e3), UINT64_C(0x2d358dccaa6c78a5),
        UINT64_C(0x8bb84b93962eacc9), UINT64_C(0x4b33a62ed433d4a3), UINT64_C(0x4d5a2da51de1aa47), UINT64_C(0xaaaaaaaaaaaaaaab),
        UINT64_C(0x5851f42d4c957f2d), UINT64_C(0x14057b7ef767814f), UINT64_C(0x27bb2ee687b0b0fd), UINT64_C(0x2545f4914f6cdd1d),
    };
    uint64_t word[16];
    uint64_t sum = 0;

    memcpy(word, slot, sizeof word);
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++)
        sum += log_hash_fold(word[2 * i] ^ key[2 * i], word[2 * i + 1] ^ key[2 * i + 1]);
    sum += log_hash_fold(sequence ^ LOG_HASH_SEQUENCE, epoch ^ LOG_HASH_EPOCH);
    return log_hash_fold(sum ^ LOG_HASH_FINAL, hash ^ LOG_HASH_SEQUENCE);
}

/* The epoch that holds from this record on. */
static inline uint64_t log_epoch_after(const log_slot_t *slot, uint64_t epoch)
{
    uint64_t named;

    if (LIKELY(slot->template_id != TEMPLATE_EPOCH_START) || (slot->flags & SLOT_FLAG_REJECT) != 0)
        return epoch;
    memcpy(&named, slot->block + offsetof(epoch_start_t, epoch), sizeof named);
    return named > epoch ? named : epoch;
}

#endif
