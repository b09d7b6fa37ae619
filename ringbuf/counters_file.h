/* Registration in a counter file, and its checks: what happens at start. Updates are in counters.h. */
#ifndef BULLRING_RINGBUF_COUNTERS_FILE_H
#define BULLRING_RINGBUF_COUNTERS_FILE_H

#include <stdint.h>

#include "counters.h"

enum counters_status { COUNTERS_FULL = -1, COUNTERS_OTHER_KIND = -2, COUNTERS_CORRUPT = -3 };

/* Bytes of a file for so many. */
uint64_t counters_size(uint32_t counters_max, uint32_t histograms_max);
void counters_format(void *memory, uint64_t size, uint32_t entry_max, const char *process, uint64_t pid, uint64_t started_ns);

/* The value's offset: of a new entry, or of the one of that name and kind; else a counters_status. */
int64_t counters_register(void *memory, const char *name, uint32_t kind);

/* How many entries are complete, or COUNTERS_CORRUPT if `memory` of `size` bytes contradicts itself. */
int64_t counters_check(const void *memory, uint64_t size);
const counters_entry_t *counters_entry(const void *memory, uint32_t index);
void counters_copy_histogram(const histogram_t *histogram, uint64_t *words);

#endif
