/* One private mapping an owner of state keeps all its tables in. Tables are carved by the same code twice: once to measure (base
 * NULL), once for real; indices instead of pointers inside make a snapshot one write and a restore one map. */
#ifndef BULLRING_ENGINE_ARENA_H
#define BULLRING_ENGINE_ARENA_H

#include <stddef.h>
#include <stdint.h>

typedef struct arena {
    uint8_t *base; /* NULL while measuring */
    size_t used;
    size_t size;
} arena_t;

/* Map `size` zeroed bytes, huge pages where the kernel gives them. Returns 0, or -1 when the memory is not to be had. */
int arena_map(arena_t *arena, size_t size);
void arena_unmap(arena_t *arena);

/* Next `count` items of `item_size` bytes, cache-line aligned; NULL while measuring. */
static inline void *arena_take(arena_t *arena, size_t count, size_t item_size)
{
    size_t start = (arena->used + 127) & ~(size_t)127;
    arena->used = start + count * item_size;
    return arena->base == NULL ? NULL : arena->base + start;
}

#endif
