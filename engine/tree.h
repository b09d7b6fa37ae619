/* An ordered map from int64 keys to FIFO heads: far price levels, trigger prices, expiry times.
 *
 * A crit-bit tree (depth <= 64, whatever keys clients choose) whose leaves are also linked in key order. All trees of a matcher share
 * one slab of leaves and forks in its arena; indices, never pointers; zeroed memory is the empty tree. */
#ifndef BULLRING_ENGINE_TREE_H
#define BULLRING_ENGINE_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "invariant.h"
#include "platform.h"

#define TREE_NONE UINT32_MAX
#define TREE_LEAF 0x80000000u    /* set in a fork's child that is a leaf */
#define TREE_LEAVES_MAX 0x7fffffffu

/* One FIFO of entries numbered from 1. Both 0 = empty, so zeroed memory is empty. */
typedef struct level {
    uint32_t head; /* oldest */
    uint32_t tail;
} level_t;

typedef struct tree_leaf {
    level_t level;
    int64_t key;
    uint32_t lower; /* neighbours in key order; `higher` also links the free list */
    uint32_t higher;
} tree_leaf_t;

typedef struct tree_fork {
    uint32_t child[2]; /* by the key's bit; child[0] also links the free list */
    uint32_t bit;
} tree_fork_t;

typedef struct tree {
    uint32_t count;
    uint32_t root; /* this and the next two are valid while count > 0 */
    uint32_t lowest;
    uint32_t highest;
} tree_t;

typedef struct tree_slab {
    uint32_t leaf_free, leaf_used; /* free list; never used from leaf_used on */
    uint32_t fork_free, fork_used;
    uint32_t capacity;
    uint32_t pad;
} tree_slab_t;

/* Where the slab is in this process; not state. */
typedef struct tree_store {
    tree_slab_t *slab;
    tree_leaf_t *leaves;
    tree_fork_t *forks;
} tree_store_t;

_Static_assert(sizeof(level_t) == 8, "eight levels a cache line");
_Static_assert(sizeof(tree_leaf_t) == 24, "no holes");

void tree_slab_init(tree_slab_t *slab, uint32_t capacity);

/* The leaf of a key, TREE_NONE if there is none. */
uint32_t tree_find(const tree_store_t *store, const tree_t *tree, int64_t key);
/* The leaf of a key, made with a zeroed level if there is none. */
uint32_t tree_open(const tree_store_t *store, tree_t *tree, int64_t key);
void tree_close(const tree_store_t *store, tree_t *tree, int64_t key);
/* First leaf with a key >= `key`, or last one with a key <= `key`; TREE_NONE if there is none. */
uint32_t tree_at_or_above(const tree_store_t *store, const tree_t *tree, int64_t key);
uint32_t tree_at_or_below(const tree_store_t *store, const tree_t *tree, int64_t key);
/* NULL, or which invariant is broken. For tests and audits. */
const char *tree_check(const tree_store_t *store, const tree_t *tree);

static inline uint32_t tree_lowest(const tree_t *tree)
{
    return tree->count > 0 ? tree->lowest : TREE_NONE;
}

static inline uint32_t tree_highest(const tree_t *tree)
{
    return tree->count > 0 ? tree->highest : TREE_NONE;
}

#endif
