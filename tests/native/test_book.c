/* Price levels alone, against a sorted array: any int64 price, windows of one, two and three bitmap words a path, slides that
 * do not finish in one step. */
#include "engine/levels.h"
#include "matcher_kit.h"

#define LEVELS_MAX 3000

typedef struct fixture {
    level_store_t store;
    far_slab_t slab;
    levels_t side;
    void *arena;
    int64_t prices[LEVELS_MAX]; /* ascending */
    int count;
    uint64_t random;
} fixture_t;

static fixture_t fixture;

static void fixture_open(uint32_t window_log2, bool is_bid)
{
    memset(&fixture, 0, sizeof(fixture));
    levels_store_open(&fixture.store, NULL, window_log2);
    size_t size = levels_window_size(&fixture.store);
    fixture.arena = calloc(1, size);
    CHECK(fixture.arena != NULL);
    fixture.store.arena = fixture.arena;
    fixture.store.far = calloc(LEVELS_MAX, sizeof(far_level_t));
    fixture.store.forks = calloc(LEVELS_MAX, sizeof(far_fork_t));
    fixture.store.slab = &fixture.slab;
    fixture.slab = (far_slab_t){.level_free = LEVELS_NONE, .fork_free = LEVELS_NONE, .capacity = LEVELS_MAX};
    levels_init(&fixture.side, is_bid, 0);
    fixture.random = 88172645463325252u;
}

static void fixture_close(void)
{
    free(fixture.arena);
    free(fixture.store.far);
    free(fixture.store.forks);
}

static uint64_t next_random(void)
{
    fixture.random ^= fixture.random << 13;
    fixture.random ^= fixture.random >> 7;
    fixture.random ^= fixture.random << 17;
    return fixture.random >> 3;
}

static int position(int64_t price)
{
    int at = 0;
    while (at < fixture.count && fixture.prices[at] < price)
        at++;
    return at;
}

static void add(int64_t price)
{
    int at = position(price);
    level_t *level = levels_open(&fixture.store, &fixture.side, price);
    if (level->quantity++ != 0)
        return;
    level->head = (uint32_t)price;
    memmove(&fixture.prices[at + 1], &fixture.prices[at], sizeof(int64_t) * (size_t)(fixture.count - at));
    fixture.prices[at] = price;
    fixture.count++;
}

static void drop(int at)
{
    int64_t price = fixture.prices[at];
    level_t *level = levels_find(&fixture.store, &fixture.side, price);
    CHECK(level != NULL);
    CHECK_EQUAL(level->head, (uint32_t)price);
    level->quantity = 0;
    levels_close(&fixture.store, &fixture.side, price);
    fixture.count--;
    memmove(&fixture.prices[at], &fixture.prices[at + 1], sizeof(int64_t) * (size_t)(fixture.count - at));
}

/* As after an input: one step of a slide, then everything must hold. */
static void step(bool check)
{
    if (fixture.side.sliding)
        levels_slide(&fixture.store, &fixture.side);
    CHECK_EQUAL(levels_count(&fixture.side), fixture.count);
    if (fixture.count > 0)
        CHECK_EQUAL(fixture.side.best, fixture.prices[fixture.side.is_bid ? fixture.count - 1 : 0]);
    if (!check)
        return;
    const char *broken = levels_check(&fixture.store, &fixture.side);
    if (broken != NULL) {
        fprintf(stderr, "levels_check: %s\n", broken);
        exit(1);
    }
    levels_iterator_t iterator;
    levels_begin(&fixture.store, &fixture.side, &iterator);
    for (int i = 0; i < fixture.count; i++, levels_next(&fixture.store, &fixture.side, &iterator)) {
        CHECK(iterator.level != NULL);
        CHECK_EQUAL(iterator.price, fixture.prices[fixture.side.is_bid ? fixture.count - 1 - i : i]);
    }
    CHECK(iterator.level == NULL);
}

static void random_levels_agree_with_a_sorted_array(uint32_t window_log2, bool is_bid)
{
    int64_t mid = 0;
    fixture_open(window_log2, is_bid);
    for (int i = 0; i < 20000; i++) {
        uint64_t kind = next_random() % 1000;
        int64_t width = INT64_C(2) << window_log2;
        if (kind == 0)
            mid = (int64_t)(next_random() << 2) - INT64_MAX / 2; /* the market leaps */
        if (kind < 550 && fixture.count < LEVELS_MAX - 1)
            add(mid + (int64_t)(next_random() % (uint64_t)width) - width / 2);
        else if (kind < 555 && fixture.count < LEVELS_MAX - 2)
            add(kind & 1 ? INT64_MAX - (int64_t)kind : INT64_MIN + (int64_t)kind);
        else if (kind < 750 && fixture.count > 0)
            drop(fixture.side.is_bid ? fixture.count - 1 : 0); /* the touch is swept */
        else if (fixture.count > 0)
            drop((int)(next_random() % (uint64_t)fixture.count));
        step(i % 64 == 0);
    }
    fixture_close();
}

static void a_slide_moves_a_bounded_number_of_levels_a_step(bool is_bid)
{
    enum { LEVELS = 48 };
    int64_t sign = is_bid ? 1 : -1;
    fixture_open(6, is_bid);
    for (int64_t i = 0; i < LEVELS; i++)
        add(-sign * i); /* fills the window behind the touch */
    step(true);
    CHECK(!fixture.side.sliding);
    uint32_t far_before = fixture.side.far_count;

    add(sign * 1000); /* the market leaps to a far level */
    CHECK(fixture.side.sliding);
    int steps = 0;
    for (; fixture.side.sliding; steps++) {
        uint32_t near_before = fixture.side.near_count;
        step(true);
        CHECK(near_before - fixture.side.near_count <= LEVELS_SLIDE_STEP);
    }
    CHECK(steps >= LEVELS / LEVELS_SLIDE_STEP);
    CHECK_EQUAL(fixture.side.near_count, 1);
    CHECK_EQUAL(fixture.side.far_count, far_before + LEVELS);

    drop(is_bid ? fixture.count - 1 : 0); /* and back: they come in again, as many a step */
    for (steps = 0; fixture.side.sliding; steps++) {
        uint32_t near_before = fixture.side.near_count;
        step(true);
        CHECK(fixture.side.near_count - near_before <= LEVELS_SLIDE_STEP);
    }
    CHECK(steps >= LEVELS / LEVELS_SLIDE_STEP);
    CHECK_EQUAL(fixture.side.far_count, far_before);
    fixture_close();
}

int main(void)
{
    static const uint32_t windows[] = {6, 12, 13, 16};
    for (size_t i = 0; i < sizeof(windows) / sizeof(windows[0]); i++) {
        random_levels_agree_with_a_sorted_array(windows[i], true);
        random_levels_agree_with_a_sorted_array(windows[i], false);
    }
    a_slide_moves_a_bounded_number_of_levels_a_step(true);
    a_slide_moves_a_bounded_number_of_levels_a_step(false);
    puts("levels: all agree");
    return 0;
}
