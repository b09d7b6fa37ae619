/* See tree.h. */
#include "engine/tree.h"

#include <string.h>

#define KEY_SIGN (UINT64_C(1) << 63)

void tree_slab_init(tree_slab_t *slab, uint32_t capacity)
{
    INVARIANT(capacity <= TREE_LEAVES_MAX);
    *slab = (tree_slab_t){.leaf_free = TREE_NONE, .fork_free = TREE_NONE, .capacity = capacity};
}

/* Keys as the tree sees them: unsigned, in the same order. */
static uint64_t bits_of(int64_t key)
{
    return (uint64_t)key ^ KEY_SIGN;
}

static uint32_t top_bit(uint64_t set)
{
    return 63 - (uint32_t)__builtin_clzll(set);
}

static uint32_t take_leaf(const tree_store_t *store)
{
    tree_slab_t *slab = store->slab;
    uint32_t index = slab->leaf_free;
    if (index != TREE_NONE) {
        slab->leaf_free = store->leaves[index].higher;
        return index;
    }
    INVARIANT(slab->leaf_used < slab->capacity); /* as many as there can be entries */
    return slab->leaf_used++;
}

static uint32_t take_fork(const tree_store_t *store)
{
    tree_slab_t *slab = store->slab;
    uint32_t index = slab->fork_free;
    if (index != TREE_NONE) {
        slab->fork_free = store->forks[index].child[0];
        return index;
    }
    INVARIANT(slab->fork_used < slab->capacity);
    return slab->fork_used++;
}

/* The leaf that shares the longest prefix along the tree's forks. */
static uint32_t descend(const tree_store_t *store, const tree_t *tree, uint64_t bits)
{
    uint32_t node = tree->root;
    while ((node & TREE_LEAF) == 0) /* at most 64 forks */
        node = store->forks[node].child[bits >> store->forks[node].bit & 1];
    return node & ~TREE_LEAF;
}

uint32_t tree_find(const tree_store_t *store, const tree_t *tree, int64_t key)
{
    if (tree->count == 0)
        return TREE_NONE;
    uint32_t leaf = descend(store, tree, bits_of(key));
    return store->leaves[leaf].key == key ? leaf : TREE_NONE;
}

static uint32_t extreme(const tree_store_t *store, uint32_t node, int direction)
{
    while ((node & TREE_LEAF) == 0)
        node = store->forks[node].child[direction];
    return node & ~TREE_LEAF;
}

static void link_leaf(const tree_store_t *store, tree_t *tree, uint32_t index, uint32_t lower, uint32_t higher)
{
    store->leaves[index].lower = lower;
    store->leaves[index].higher = higher;
    if (lower != TREE_NONE)
        store->leaves[lower].higher = index;
    else
        tree->lowest = index;
    if (higher != TREE_NONE)
        store->leaves[higher].lower = index;
    else
        tree->highest = index;
}

static uint32_t insert(const tree_store_t *store, tree_t *tree, int64_t key, uint32_t near)
{
    uint32_t index = take_leaf(store);
    store->leaves[index] = (tree_leaf_t){.key = key};
    if (tree->count++ == 0) {
        tree->root = index | TREE_LEAF;
        link_leaf(store, tree, index, TREE_NONE, TREE_NONE);
        return index;
    }
    uint64_t bits = bits_of(key);
    uint32_t bit = top_bit(bits ^ bits_of(store->leaves[near].key));
    uint32_t *link = &tree->root;
    while ((*link & TREE_LEAF) == 0 && store->forks[*link].bit > bit)
        link = &store->forks[*link].child[bits >> store->forks[*link].bit & 1];
    uint32_t fork = take_fork(store);
    uint32_t above = bits >> bit & 1;
    uint32_t sibling = *link;
    store->forks[fork].bit = bit;
    store->forks[fork].child[above] = index | TREE_LEAF;
    store->forks[fork].child[above ^ 1] = sibling;
    *link = fork;
    if (above) {
        uint32_t lower = extreme(store, sibling, 1);
        link_leaf(store, tree, index, lower, store->leaves[lower].higher);
    } else {
        uint32_t higher = extreme(store, sibling, 0);
        link_leaf(store, tree, index, store->leaves[higher].lower, higher);
    }
    return index;
}

uint32_t tree_open(const tree_store_t *store, tree_t *tree, int64_t key)
{
    uint32_t near = tree->count > 0 ? descend(store, tree, bits_of(key)) : TREE_NONE;
    if (near != TREE_NONE && store->leaves[near].key == key)
        return near;
    return insert(store, tree, key, near);
}

void tree_close(const tree_store_t *store, tree_t *tree, int64_t key)
{
    uint64_t bits = bits_of(key);
    uint32_t *link = &tree->root;
    uint32_t *parent_link = NULL;
    INVARIANT(tree->count > 0);
    while ((*link & TREE_LEAF) == 0) {
        parent_link = link;
        link = &store->forks[*link].child[bits >> store->forks[*link].bit & 1];
    }
    uint32_t index = *link & ~TREE_LEAF;
    tree_leaf_t *leaf = store->leaves + index;
    INVARIANT(leaf->key == key);
    if (parent_link != NULL) {
        uint32_t fork = *parent_link;
        *parent_link = store->forks[fork].child[link == &store->forks[fork].child[0] ? 1 : 0];
        store->forks[fork].child[0] = store->slab->fork_free;
        store->slab->fork_free = fork;
    }
    if (leaf->lower != TREE_NONE)
        store->leaves[leaf->lower].higher = leaf->higher;
    else
        tree->lowest = leaf->higher;
    if (leaf->higher != TREE_NONE)
        store->leaves[leaf->higher].lower = leaf->lower;
    else
        tree->highest = leaf->lower;
    tree->count--;
    leaf->higher = store->slab->leaf_free;
    store->slab->leaf_free = index;
}

/* Where a key that has no leaf would stand: the node whose leaves all lie on one side of it, and on which. */
static uint32_t split_node(const tree_store_t *store, const tree_t *tree, uint64_t bits, uint32_t near, bool *leaves_above)
{
    uint32_t bit = top_bit(bits ^ bits_of(store->leaves[near].key));
    uint32_t node = tree->root;
    while ((node & TREE_LEAF) == 0 && store->forks[node].bit > bit)
        node = store->forks[node].child[bits >> store->forks[node].bit & 1];
    *leaves_above = (bits >> bit & 1) == 0;
    return node;
}

uint32_t tree_at_or_above(const tree_store_t *store, const tree_t *tree, int64_t key)
{
    bool above;
    if (tree->count == 0)
        return TREE_NONE;
    uint64_t bits = bits_of(key);
    uint32_t near = descend(store, tree, bits);
    if (store->leaves[near].key == key)
        return near;
    uint32_t node = split_node(store, tree, bits, near, &above);
    return above ? extreme(store, node, 0) : store->leaves[extreme(store, node, 1)].higher;
}

uint32_t tree_at_or_below(const tree_store_t *store, const tree_t *tree, int64_t key)
{
    bool above;
    if (tree->count == 0)
        return TREE_NONE;
    uint64_t bits = bits_of(key);
    uint32_t near = descend(store, tree, bits);
    if (store->leaves[near].key == key)
        return near;
    uint32_t node = split_node(store, tree, bits, near, &above);
    return above ? store->leaves[extreme(store, node, 0)].lower : extreme(store, node, 1);
}

const char *tree_check(const tree_store_t *store, const tree_t *tree)
{
    uint32_t count = 0;
    uint32_t before = TREE_NONE;
    for (uint32_t index = tree_lowest(tree); index != TREE_NONE; index = store->leaves[index].higher) {
        const tree_leaf_t *leaf = store->leaves + index;
        if (++count > tree->count)
            return "a tree's list is longer than its count";
        if (leaf->lower != before)
            return "a tree's list is not linked both ways";
        if (before != TREE_NONE && store->leaves[before].key >= leaf->key)
            return "a tree's list is not sorted";
        if (tree_find(store, tree, leaf->key) != index)
            return "a leaf is not found by its key";
        if (leaf->level.head == 0)
            return "a leaf is empty";
        before = index;
    }
    if (count != tree->count)
        return "a tree's count is wrong";
    return before == tree_highest(tree) ? NULL : "a tree's highest leaf is wrong";
}
