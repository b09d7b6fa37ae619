#include "sort.h"

#include <string.h>

#define DIGIT_BITS 11
#define DIGITS ((64 + DIGIT_BITS - 1) / DIGIT_BITS)
#define BUCKETS (1 << DIGIT_BITS)

static uint32_t digit_of(const sort_row_t *row, int digit)
{
    uint64_t key = digit < DIGITS ? row->minor : row->major;
    return (uint32_t)(key >> (digit % DIGITS) * DIGIT_BITS) & (BUCKETS - 1);
}

/* Move the rows by one digit; false if they all have the same and nothing was moved. */
static bool pass(const sort_row_t *from, sort_row_t *to, int64_t count, int digit)
{
    uint32_t starts[BUCKETS] = {0};
    uint32_t next = 0;

    for (int64_t i = 0; i < count; i++)
        starts[digit_of(&from[i], digit)]++;
    if (starts[digit_of(&from[0], digit)] == (uint32_t)count)
        return false;
    for (int i = 0; i < BUCKETS; i++) {
        uint32_t rows = starts[i];
        starts[i] = next;
        next += rows;
    }
    for (int64_t i = 0; i < count; i++)
        to[starts[digit_of(&from[i], digit)]++] = from[i];
    return true;
}

sort_row_t *sort_rows(sort_row_t *rows, sort_row_t *spare, int64_t count)
{
    for (int digit = 0; count > 1 && digit < 2 * DIGITS; digit++) {
        if (!pass(rows, spare, count, digit))
            continue;
        sort_row_t *moved = spare;
        spare = rows;
        rows = moved;
    }
    return rows;
}
