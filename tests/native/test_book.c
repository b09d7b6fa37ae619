/* Price levels alone, against a sorted array: any rank, windows of one, two and three bitmap words a path, slides that do not finish
 * in one step. Then the tree alone. */
#include "engine/levels.h"
#include "matcher_kit.h"

#define LEVELS_MAX 3000

typedef struct fixture {
    tree_store_t trees;
    tree_slab_t slab;
    levels_t *side;
    void *window;
    int64_t ranks[LEVELS_MAX]; /* ascending */
    int count;
    uint64_t random;
} fixture_t;

static fixture_t fixture;

static size_t round_up(size_t size)
{
    return (size + 63) / 64 * 64;
}

static void fixture_open(uint32_t window_log2)
{
    size_t size = round_up(sizeof(levels_t)) + round_up(levels_window_size(window_log2));

    memset(&fixture, 0, sizeof(fixture));
    fixture.window = aligned_alloc(64, size);
    CHECK(fixture.window != NULL);
    memset(fixture.window, 0, size);
    fixture.side = fixture.window;
    fixture.trees = (tree_store_t){.slab = &fixture.slab,
                                   .leaves = calloc(LEVELS_MAX, sizeof(tree_leaf_t)),
                                   .forks = calloc(LEVELS_MAX, sizeof(tree_fork_t))};
    tree_slab_init(&fixture.slab, LEVELS_MAX);
    levels_init(fixture.side, window_log2, (uint8_t *)fixture.window + round_up(sizeof(levels_t)));
    fixture.random = 88172645463325252u;
}

static void fixture_close(void)
{
    free(fixture.window);
    free(fixture.trees.leaves);
    free(fixture.trees.forks);
}

static uint64_t next_random(void)
{
    fixture.random ^= fixture.random << 13;
    fixture.random ^= fixture.random >> 7;
    fixture.random ^= fixture.random << 17;
    return fixture.random >> 3;
}

static int position(int64_t rank)
{
    int at = 0;
    while (at < fixture.count && fixture.ranks[at] < rank)
        at++;
    return at;
}

/* The level's FIFO is not linked here: head is a mark, tail how many orders there are. */
static void add(int64_t rank)
{
    int at = position(rank);
    level_t *level = levels_open(&fixture.trees, fixture.side, rank);
    level->head = (uint32_t)rank | 1;
    if (level->tail++ != 0)
        return;
    memmove(&fixture.ranks[at + 1], &fixture.ranks[at], sizeof(int64_t) * (size_t)(fixture.count - at));
    fixture.ranks[at] = rank;
    fixture.count++;
}

static void drop(int at)
{
    int64_t rank = fixture.ranks[at];
    level_t *level = levels_find(&fixture.trees, fixture.side, rank);
    CHECK(level != NULL);
    CHECK_EQUAL(level->head, (uint32_t)rank | 1);
    *level = (level_t){0, 0};
    levels_close(&fixture.trees, fixture.side, rank);
    fixture.count--;
    memmove(&fixture.ranks[at], &fixture.ranks[at + 1], sizeof(int64_t) * (size_t)(fixture.count - at));
}

/* As after an input: one step of a slide, then everything must hold. */
static void step(bool check)
{
    if (fixture.side->sliding)
        levels_slide(&fixture.trees, fixture.side);
    CHECK_EQUAL(fixture.side->best, fixture.count > 0 ? fixture.ranks[0] : RANK_NONE);
    if (!check)
        return;
    const char *broken = levels_check(&fixture.trees, fixture.side);
    if (broken != NULL) {
        fprintf(stderr, "levels_check: %s\n", broken);
        exit(1);
    }
    levels_iterator_t iterator;
    levels_begin(&fixture.trees, fixture.side, &iterator);
    for (int i = 0; i < fixture.count; i++, levels_next(&fixture.trees, fixture.side, &iterator)) {
        CHECK(iterator.level != NULL);
        CHECK_EQUAL(iterator.rank, fixture.ranks[i]);
    }
    CHECK(iterator.level == NULL);
}

static void random_levels_agree_with_a_sorted_array(uint32_t window_log2)
{
    int64_t mid = 0;
    fixture_open(window_log2);
    for (int i = 0; i < 20000; i++) {
        uint64_t kind = next_random() % 1000;
        int64_t width = INT64_C(2) << window_log2;
        if (kind == 0)
            mid = (int64_t)(next_random() << 2) - INT64_MAX / 2; /* the market leaps */
        if (kind < 550 && fixture.count < LEVELS_MAX - 1)
            add(mid + (int64_t)(next_random() % (uint64_t)width) - width / 2);
        else if (kind < 555 && fixture.count < LEVELS_MAX - 2)
            add(kind & 1 ? INT64_MAX - 1 - (int64_t)kind : INT64_MIN + (int64_t)kind);
        else if (kind < 750 && fixture.count > 0)
            drop(0); /* the touch is swept */
        else if (fixture.count > 0)
            drop((int)(next_random() % (uint64_t)fixture.count));
        step(i % 64 == 0);
    }
    fixture_close();
}

static uint32_t far_count(void)
{
    return fixture.side->far.count;
}

static void a_slide_moves_a_bounded_number_of_levels_a_step(void)
{
    enum { LEVELS = 48 };
    fixture_open(6);
    for (int64_t i = 0; i < LEVELS; i++)
        add(i); /* fills the window behind the touch */
    for (int i = 0; fixture.side->sliding && i < LEVELS; i++)
        step(true);
    CHECK(!fixture.side->sliding);
    uint32_t far_before = far_count();

    add(-1000); /* the market leaps to a far level */
    CHECK(fixture.side->sliding);
    int steps = 0;
    for (; fixture.side->sliding; steps++) {
        uint32_t before = far_count();
        step(true);
        CHECK(far_count() <= before + LEVELS_SLIDE_STEP);
    }
    CHECK(steps >= (LEVELS - (int)far_before) / LEVELS_SLIDE_STEP);
    CHECK_EQUAL(far_count(), LEVELS);

    drop(0); /* and back: they come in again, as many a step */
    for (steps = 0; fixture.side->sliding; steps++) {
        uint32_t before = far_count();
        step(true);
        CHECK(far_count() + LEVELS_SLIDE_STEP >= before);
    }
    CHECK(steps >= (LEVELS - (int)far_before) / LEVELS_SLIDE_STEP);
    CHECK_EQUAL(far_count(), far_before);
    fixture_close();
}

static void check_tree(const tree_t *tree)
{
    const char *broken = tree_check(&fixture.trees, tree);
    if (broken != NULL) {
        fprintf(stderr, "tree_check: %s\n", broken);
        exit(1);
    }
    CHECK_EQUAL(tree->count, fixture.count);
}

/* Keys of all magnitudes, so that forks stand at all bits; asked for neighbours of keys that are there and that are not. */
static void a_tree_agrees_with_a_sorted_array(void)
{
    tree_t tree = {0};
    fixture_open(6);
    for (int i = 0; i < 20000; i++) {
        int64_t key = (int64_t)(next_random() << 3) >> (next_random() % 62);
        int at = position(key);
        bool there = at < fixture.count && fixture.ranks[at] == key;
        if (next_random() % 100 < 55 && fixture.count < LEVELS_MAX - 1) {
            fixture.trees.leaves[tree_open(&fixture.trees, &tree, key)].level.head = (uint32_t)key | 1;
            if (!there) {
                memmove(&fixture.ranks[at + 1], &fixture.ranks[at], sizeof(int64_t) * (size_t)(fixture.count - at));
                fixture.ranks[at] = key;
                fixture.count++;
            }
        } else if (fixture.count > 0) {
            at = (int)(next_random() % (uint64_t)fixture.count);
            key = fixture.ranks[at];
            tree_close(&fixture.trees, &tree, key);
            fixture.count--;
            memmove(&fixture.ranks[at], &fixture.ranks[at + 1], sizeof(int64_t) * (size_t)(fixture.count - at));
        }
        key = (int64_t)(next_random() << 3) >> (next_random() % 62);
        at = position(key);
        there = at < fixture.count && fixture.ranks[at] == key;
        uint32_t above = tree_at_or_above(&fixture.trees, &tree, key);
        uint32_t below = tree_at_or_below(&fixture.trees, &tree, key);
        CHECK((above == TREE_NONE) == (at == fixture.count));
        CHECK(above == TREE_NONE || fixture.trees.leaves[above].key == fixture.ranks[at]);
        CHECK((below == TREE_NONE) == (at == 0 && !there));
        CHECK(below == TREE_NONE || fixture.trees.leaves[below].key == fixture.ranks[there ? at : at - 1]);
        CHECK((tree_find(&fixture.trees, &tree, key) != TREE_NONE) == there);
        if (i % 64 == 0)
            check_tree(&tree);
    }
    fixture_close();
}

int main(void)
{
    static const uint32_t windows[] = {6, 12, 13, 16};
    for (size_t i = 0; i < sizeof(windows) / sizeof(windows[0]); i++)
        random_levels_agree_with_a_sorted_array(windows[i]);
    a_slide_moves_a_bounded_number_of_levels_a_step();
    a_tree_agrees_with_a_sorted_array();
    puts("levels: all agree");
    return 0;
}
