#include "arena.h"

#include <sys/mman.h>

int arena_map(arena_t *arena, size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        return -1;
    /* Advice only: without huge pages the tables are slower, not wrong. */
    (void)madvise(memory, size, MADV_HUGEPAGE);
    arena->base = memory;
    arena->size = size;
    arena->used = 0;
    return 0;
}

void arena_unmap(arena_t *arena)
{
    if (arena->base != NULL)
        (void)munmap(arena->base, arena->size);
    arena->base = NULL;
}
