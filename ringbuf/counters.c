#include "counters_file.h"

#include <string.h>

#include "counters.h"
#include "invariant.h"

static uint64_t value_size(uint32_t kind)
{
    return kind == COUNTERS_HISTOGRAM ? sizeof(histogram_t) : sizeof(counter_t);
}

static uint64_t values_begin(uint32_t entry_max)
{
    return COUNTERS_HEADER_SIZE + (uint64_t)entry_max * sizeof(counters_entry_t);
}

uint64_t counters_size(uint32_t counters_max, uint32_t histograms_max)
{
    return values_begin(counters_max + histograms_max) + (uint64_t)counters_max * sizeof(counter_t) +
           (uint64_t)histograms_max * sizeof(histogram_t);
}

static void copy_name(char *target, size_t size, const char *name)
{
    size_t length = strnlen(name, size - 1);

    memset(target, 0, size);
    memcpy(target, name, length);
}

void counters_format(void *memory, uint64_t size, uint32_t entry_max, const char *process, uint64_t pid, uint64_t started_ns)
{
    counters_header_t *header = (counters_header_t *)memory;

    INVARIANT(size >= values_begin(entry_max));
    header->magic = COUNTERS_MAGIC;
    header->layout_version = COUNTERS_LAYOUT_VERSION;
    header->entry_max = entry_max;
    header->size = size;
    header->started_ns = started_ns;
    header->pid = pid;
    copy_name(header->process, sizeof(header->process), process);
    header->used = values_begin(entry_max);
    atomic_store_explicit(&header->entry_count, 0, memory_order_release);
}

static counters_entry_t *entries(const void *memory)
{
    return (counters_entry_t *)((uintptr_t)memory + COUNTERS_HEADER_SIZE);
}

int64_t counters_register(void *memory, const char *name, uint32_t kind)
{
    counters_header_t *header = (counters_header_t *)memory;
    uint32_t count = atomic_load_explicit(&header->entry_count, memory_order_relaxed);

    for (uint32_t i = 0; i < count; i++) {
        const counters_entry_t *entry = &entries(memory)[i];
        if (strncmp(entry->name, name, COUNTERS_NAME_MAX - 1) == 0)
            return entry->kind == kind ? (int64_t)entry->offset : COUNTERS_OTHER_KIND;
    }
    if (count == header->entry_max || header->used + value_size(kind) > header->size)
        return COUNTERS_FULL;
    counters_entry_t *entry = &entries(memory)[count];
    entry->offset = header->used;
    entry->kind = kind;
    copy_name(entry->name, sizeof(entry->name), name);
    header->used += value_size(kind);
    if (kind == COUNTERS_HISTOGRAM) {
        histogram_t *histogram = (histogram_t *)((uintptr_t)memory + entry->offset);
        atomic_store_explicit(&histogram->smallest, UINT64_MAX, memory_order_relaxed);
    }
    /* Release: the entry before the count that includes it. Pairs with the acquire in counters_check(). */
    atomic_store_explicit(&header->entry_count, count + 1, memory_order_release);
    return (int64_t)entry->offset;
}

int64_t counters_check(const void *memory, uint64_t size)
{
    const counters_header_t *header = (const counters_header_t *)memory;
    uint32_t count = atomic_load_explicit(&header->entry_count, memory_order_acquire);

    if (header->size != size || count > header->entry_max || values_begin(header->entry_max) > size)
        return COUNTERS_CORRUPT;
    for (uint32_t i = 0; i < count; i++) {
        const counters_entry_t *entry = &entries(memory)[i];
        if (entry->kind < COUNTERS_COUNTER || entry->kind > COUNTERS_HISTOGRAM || entry->offset % sizeof(uint64_t) != 0 ||
            entry->offset < values_begin(header->entry_max) || entry->offset > size ||
            size - entry->offset < value_size(entry->kind) || memchr(entry->name, 0, COUNTERS_NAME_MAX) == NULL)
            return COUNTERS_CORRUPT;
    }
    return count;
}

const counters_entry_t *counters_entry(const void *memory, uint32_t index)
{
    return &entries(memory)[index];
}

void counters_copy_histogram(const histogram_t *histogram, uint64_t *words)
{
    words[0] = atomic_load_explicit(&histogram->sum, memory_order_relaxed);
    words[1] = atomic_load_explicit(&histogram->smallest, memory_order_relaxed);
    words[2] = atomic_load_explicit(&histogram->largest, memory_order_relaxed);
    for (uint32_t i = 0; i < HISTOGRAM_BUCKETS; i++)
        words[3 + i] = atomic_load_explicit(&histogram->buckets[i], memory_order_relaxed);
}
