/* What book_bench feeds to both books: a file of recorded operations, or a flow of its own around a given number of resting orders.
 *
 * A file (OBSTRM01: 64-byte header, 16-byte records) states the fills, quantity and notional that any right book makes of it. Its own
 * flows say it, too. */
#ifndef BULLRING_BOOK_STREAM_H
#define BULLRING_BOOK_STREAM_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "array_book.h"
#include "invariant.h"

#define STREAM_ORDERS_MAX 10000000
#define STREAM_OPERATIONS_MIN 1000000
#define STREAM_SPREAD_TICKS 4096 /* how far from the middle a flow's orders stand */
#define STREAM_MIDDLE ((int32_t)(ARRAY_TICKS / 2))
#define STREAM_SEED UINT64_C(0x9e3779b97f4a7c15)

enum { OP_NEW, OP_IOC, OP_MARKET, OP_CANCEL, OP_REPLACE };

typedef struct stream_header {
    char magic[8];
    uint64_t operations, ids;
    int64_t price_min, price_max;
    uint64_t fills, quantity, notional;
} stream_header_t;

typedef struct operation {
    uint8_t op, side;
    uint16_t flags;
    uint32_t quantity, id;
    int32_t price;
} operation_t;

_Static_assert(sizeof(stream_header_t) == 64 && sizeof(operation_t) == 16, "as in the files");

typedef struct stream {
    char name[64];
    stream_header_t header;
    operation_t *operations;
    uint64_t timed_from; /* operations before that only fill the book */
} stream_t;

static inline void *stream_memory(uint64_t count, size_t size)
{
    void *memory = calloc(count, size);
    INVARIANT(memory != NULL);
    return memory;
}

/* Ends the program with a sentence if the file is none of that format. */
static inline void stream_load(stream_t *stream, const char *path)
{
    FILE *file = fopen(path, "rb");
    stream_header_t *header = &stream->header;
    if (file == NULL || fread(header, sizeof(*header), 1, file) != 1 || memcmp(header->magic, "OBSTRM01", 8) != 0 ||
        header->operations == 0 || header->price_min < 1 || header->price_max >= (int64_t)ARRAY_TICKS) {
        fprintf(stderr, "book_bench: %s is no stream this bench can read\n", path);
        exit(2);
    }
    stream->operations = stream_memory(header->operations, sizeof(operation_t));
    if (fread(stream->operations, sizeof(operation_t), header->operations, file) != header->operations) {
        fprintf(stderr, "book_bench: %s is truncated\n", path);
        exit(2);
    }
    fclose(file);
    const char *slash = strrchr(path, '/');
    (void)snprintf(stream->name, sizeof(stream->name), "%s", slash != NULL ? slash + 1 : path);
}

/* xorshift64*, the same numbers everywhere. */
static inline uint64_t stream_random(uint64_t *state, uint64_t below)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return (*state * UINT64_C(2685821657736338717) >> 11) % below;
}

static inline operation_t stream_new_order(uint64_t *random, uint32_t id)
{
    uint8_t side = (uint8_t)stream_random(random, 2);
    int32_t away = 1 + (int32_t)stream_random(random, STREAM_SPREAD_TICKS);
    return (operation_t){.op = OP_NEW, .side = side, .quantity = 1 + (uint32_t)stream_random(random, 100), .id = id,
                         .price = STREAM_MIDDLE + (side == 0 ? -away : away)};
}

/* `resting` orders that never cross, then cancels of any of them and new ones in turn: the book keeps its size. */
static inline void stream_generate(stream_t *stream, uint64_t resting)
{
    uint64_t timed = 2 * resting > STREAM_OPERATIONS_MIN ? 2 * resting : STREAM_OPERATIONS_MIN;
    uint64_t random = STREAM_SEED;
    uint32_t next_id = 1;
    operation_t *operation = stream_memory(resting + timed, sizeof(operation_t));
    operation_t *open = stream_memory(resting, sizeof(operation_t));
    stream->operations = operation;
    for (uint64_t i = 0; i < resting; i++)
        *operation++ = open[i] = stream_new_order(&random, next_id++);
    for (uint64_t i = 0; i < timed / 2; i++) {
        operation_t *gone = &open[stream_random(&random, resting)];
        *operation = *gone;
        operation++->op = OP_CANCEL;
        *operation++ = *gone = stream_new_order(&random, next_id++);
    }
    free(open);
    stream->timed_from = resting;
    stream->header = (stream_header_t){.operations = (uint64_t)(operation - stream->operations), .ids = next_id, .price_min = 1,
                                       .price_max = ARRAY_TICKS - 1};
    (void)snprintf(stream->name, sizeof(stream->name), "resting-%llu", (unsigned long long)resting);
}

/* `makers` orders on one side, `levels` prices; then one order that takes them all. */
static inline void stream_sweep(stream_t *stream, uint64_t makers, uint64_t levels)
{
    operation_t *operation = stream->operations = stream_memory(makers + 1, sizeof(operation_t));
    for (uint32_t i = 0; i < makers; i++)
        *operation++ = (operation_t){.op = OP_NEW, .side = 1, .quantity = 1, .id = i + 1,
                                     .price = STREAM_MIDDLE + (int32_t)(i % levels)};
    *operation = (operation_t){.op = OP_IOC, .side = 0, .quantity = (uint32_t)makers, .id = (uint32_t)makers + 1,
                               .price = STREAM_MIDDLE + (int32_t)levels};
    stream->timed_from = makers;
    stream->header = (stream_header_t){.operations = makers + 1, .ids = makers + 2, .price_min = 1, .price_max = ARRAY_TICKS - 1,
                                       .fills = makers, .quantity = makers};
    for (uint64_t i = 0; i < makers; i++)
        stream->header.notional += (uint64_t)stream->operations[i].price;
    (void)snprintf(stream->name, sizeof(stream->name), "sweep-%llu-levels-%llu", (unsigned long long)makers,
                   (unsigned long long)levels);
}

#endif
