/* Capacities that follow from the number of orders of a partition: the sequencer refuses what would pass them, the matcher relies
 * on it. Together they are part of the state, so the factors may never change for a log that exists. */
#ifndef BULLRING_ENGINE_CAPACITY_H
#define BULLRING_ENGINE_CAPACITY_H

#include <stdint.h>

/* Side entries: stops, icebergs, dated orders, legs. */
static inline uint32_t capacity_extras(uint32_t orders_max)
{
    return orders_max / 2;
}

/* Quotes: (account, instrument, set). */
static inline uint32_t capacity_quotes(uint32_t orders_max)
{
    return orders_max / 8;
}

/* Order lists that have not ended, of all partitions. */
static inline uint32_t capacity_lists(uint32_t orders_max)
{
    return orders_max / 4;
}

#endif
