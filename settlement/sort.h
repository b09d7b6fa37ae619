/* A stable sort of rows by two 64-bit keys, without comparing: least significant digit first. Digits in which all keys agree cost one
 * pass of counting and no moving, so keys that are mostly zeros are cheap. */
#ifndef BULLRING_SETTLEMENT_SORT_H
#define BULLRING_SETTLEMENT_SORT_H

#include <stdbool.h>
#include <stdint.h>

typedef struct sort_row {
    uint64_t major;
    uint64_t minor;
    uint32_t row; /* what the caller calls it */
} sort_row_t;

/* Sort by (major, minor). `spare` has room for as many; the sorted rows are in the array returned, one of the two. */
sort_row_t *sort_rows(sort_row_t *rows, sort_row_t *spare, int64_t count);

#endif
