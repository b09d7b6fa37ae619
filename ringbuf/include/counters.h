/* Counters, gauges and latency histograms of one process in a file that it maps and anybody may read without asking it.
 *
 * Layout v1, all integers little-endian, the file `size` bytes long and never resized:
 *
 *   counters_header_t        one page; `entry_count` is stored (release) after an entry is complete, so a reader never sees a
 *                            torn registration, whenever the writer dies
 *   counters_entry_t[max]    kind, name, offset of the value from the beginning of the file; never changed once counted
 *   values                   counter_t (8 bytes) or histogram_t
 *
 * Single writer: an update is a plain load, add and store of an aligned word, so a reader sees the old or the new value. The
 * words of a histogram are read one by one: a reader adds up the buckets instead of trusting `count`.
 *
 * Buckets are log-linear as in HdrHistogram: exact below 64, then 64 to each power of two (1.6 % wide), the last takes the
 * rest. The file belongs on tmpfs: on a disk the write-back of a page may stall who writes to it. */
#ifndef BULLRING_COUNTERS_H
#define BULLRING_COUNTERS_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define COUNTERS_MAGIC UINT64_C(0x31544e554f434c42) /* "BLCOUNT1" */
#define COUNTERS_LAYOUT_VERSION 1
#define COUNTERS_HEADER_SIZE 4096
#define COUNTERS_NAME_MAX 96

#define HISTOGRAM_SUB_BITS 6
#define HISTOGRAM_SUB_BUCKETS (1 << HISTOGRAM_SUB_BITS)
#define HISTOGRAM_VALUE_BITS 40 /* 2^40 ns = 18 minutes; what is longer counts as that */
#define HISTOGRAM_BUCKETS ((HISTOGRAM_VALUE_BITS - HISTOGRAM_SUB_BITS + 1) * HISTOGRAM_SUB_BUCKETS)

enum counters_kind { COUNTERS_COUNTER = 1, COUNTERS_GAUGE = 2, COUNTERS_HISTOGRAM = 3 };

typedef struct counter {
    _Atomic int64_t value;
} counter_t;

typedef struct histogram {
    _Atomic uint64_t count;
    _Atomic uint64_t sum;
    _Atomic uint64_t smallest; /* UINT64_MAX = nothing recorded */
    _Atomic uint64_t largest;
    _Atomic uint64_t buckets[HISTOGRAM_BUCKETS];
} histogram_t;

typedef struct counters_entry {
    uint64_t offset;
    uint32_t kind;
    uint32_t spare[5];
    char name[COUNTERS_NAME_MAX];
} counters_entry_t;

typedef struct counters_header {
    uint64_t magic;
    uint32_t layout_version;
    uint32_t entry_max;
    uint64_t size;
    uint64_t started_ns; /* CLOCK_REALTIME */
    uint64_t pid;
    char process[64];
    _Atomic uint32_t entry_count;
    uint32_t spare;
    uint64_t used; /* the writer's: first free byte of the values */
} counters_header_t;

_Static_assert(sizeof(counter_t) == 8, "layout v1");
_Static_assert(sizeof(counters_entry_t) == 128, "layout v1");
_Static_assert(offsetof(counters_entry_t, name) == 32, "layout v1");
_Static_assert(offsetof(counters_header_t, process) == 40, "layout v1");
_Static_assert(offsetof(counters_header_t, entry_count) == 104, "layout v1");
_Static_assert(sizeof(counters_header_t) <= COUNTERS_HEADER_SIZE, "layout v1");
_Static_assert(offsetof(histogram_t, buckets) == 32, "layout v1");

static inline void counter_set(counter_t *counter, int64_t value)
{
    atomic_store_explicit(&counter->value, value, memory_order_relaxed);
}

static inline int64_t counter_get(const counter_t *counter)
{
    return atomic_load_explicit(&counter->value, memory_order_relaxed);
}

static inline void counter_add(counter_t *counter, int64_t delta)
{
    counter_set(counter, counter_get(counter) + delta);
}

static inline uint32_t histogram_bucket(uint64_t value)
{
    if (value < HISTOGRAM_SUB_BUCKETS)
        return (uint32_t)value;
    if (value >= (UINT64_C(1) << HISTOGRAM_VALUE_BITS))
        return HISTOGRAM_BUCKETS - 1;
    uint32_t octave = (uint32_t)(63 - HISTOGRAM_SUB_BITS - __builtin_clzll(value));
    return octave * HISTOGRAM_SUB_BUCKETS + (uint32_t)(value >> octave);
}

/* Smallest value of a bucket; that of the next one bounds it. */
static inline uint64_t histogram_bucket_low(uint32_t bucket)
{
    if (bucket < HISTOGRAM_SUB_BUCKETS)
        return bucket;
    uint32_t octave = bucket / HISTOGRAM_SUB_BUCKETS - 1;
    return (uint64_t)(bucket % HISTOGRAM_SUB_BUCKETS + HISTOGRAM_SUB_BUCKETS) << octave;
}

static inline void histogram_increase(_Atomic uint64_t *word, uint64_t delta)
{
    atomic_store_explicit(word, atomic_load_explicit(word, memory_order_relaxed) + delta, memory_order_relaxed);
}

static inline void histogram_record_many(histogram_t *histogram, uint64_t value, uint64_t times)
{
    histogram_increase(&histogram->buckets[histogram_bucket(value)], times);
    histogram_increase(&histogram->count, times);
    histogram_increase(&histogram->sum, value * times);
    if (value < atomic_load_explicit(&histogram->smallest, memory_order_relaxed))
        atomic_store_explicit(&histogram->smallest, value, memory_order_relaxed);
    if (value > atomic_load_explicit(&histogram->largest, memory_order_relaxed))
        atomic_store_explicit(&histogram->largest, value, memory_order_relaxed);
}

static inline void histogram_record(histogram_t *histogram, uint64_t value)
{
    histogram_record_many(histogram, value, 1);
}

#endif
