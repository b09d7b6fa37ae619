#include "quotes.h"

#include "invariant.h"
#include "mix.h"

void quotes_carve(quotes_t *quotes, arena_t *arena, uint32_t quotes_max, uint32_t partitions)
{
    uint64_t capacity = 1;

    while (capacity < (uint64_t)quotes_max * partitions * 2)
        capacity *= 2;
    quotes->entries = arena_take(arena, capacity, sizeof(quote_record_t));
    quotes->used = arena_take(arena, (size_t)partitions + 1, sizeof(uint32_t));
    quotes->mask = capacity - 1;
    quotes->used_max = quotes_max;
}

/* The entry, or the empty one where it would stand. */
static quote_record_t *place_of(const quotes_t *quotes, uint32_t account, uint32_t instrument, uint8_t set)
{
    uint64_t position = mix64((uint64_t)account << 32 | instrument, quotes->seed + set) & quotes->mask;

    /* Ends: the load is at most a half, so an empty entry exists. */
    for (;;) {
        quote_record_t *entry = &quotes->entries[position];
        if (entry->instrument == 0 ||
            (entry->instrument == instrument && entry->account == account && entry->set == set))
            return entry;
        position = (position + 1) & quotes->mask;
    }
}

quote_record_t *quotes_find(const quotes_t *quotes, uint32_t account, uint32_t instrument, uint8_t set)
{
    quote_record_t *entry = place_of(quotes, account, instrument, set);
    return entry->instrument == 0 ? (quote_record_t *)0 : entry;
}

quote_record_t *quotes_obtain(quotes_t *quotes, uint8_t partition, uint32_t account, uint32_t instrument, uint8_t set)
{
    quote_record_t *entry = place_of(quotes, account, instrument, set);

    if (entry->instrument == 0) {
        INVARIANT(quotes->used[partition] < quotes->used_max);
        *entry = (quote_record_t){.account = account, .instrument = instrument, .set = set,
                                  .index = quotes->used[partition]++};
    }
    return entry;
}
