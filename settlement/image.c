#include "image.h"

#include <stdlib.h>
#include <string.h>

#include "invariant.h"

/* Count it up when what the state means changes and no size does. */
#define IMAGE_FORMAT 1

typedef struct image_head {
    uint64_t layout;
    ledger_t ledger; /* without what it points to */
} image_head_t;

static uint64_t layout(void)
{
    const uint64_t sizes[] = {
        IMAGE_FORMAT,         sizeof(ledger_t),     sizeof(book_entry_t), sizeof(open_order_t),
        sizeof(order_list_t), sizeof(open_quote_t), sizeof(transfer_t),   sizeof(ledger_instrument_t),
    };
    uint64_t sum = 0;

    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        sum = pool_hash(sum ^ sizes[i]);
    return sum;
}

static size_t instruments_size(const ledger_t *ledger)
{
    return ledger->instruments_used * sizeof(ledger_instrument_t);
}

int64_t ledger_image_size(const ledger_t *ledger)
{
    return (int64_t)(sizeof(image_head_t) + instruments_size(ledger) + pool_size(&ledger->books.accounts, sizeof(book_entry_t)) +
                     pool_size(&ledger->open.orders, sizeof(open_order_t)) +
                     pool_size(&ledger->open.lists, sizeof(order_list_t)) +
                     pool_size(&ledger->open.quotes, sizeof(open_quote_t)) +
                     pool_size(&ledger->transfers, sizeof(transfer_t)));
}

/* Forget what is elsewhere in memory, so that nothing of it is copied or freed. */
static void cut_off(ledger_t *ledger)
{
    ledger->books.accounts = (pool_t){0};
    ledger->open.orders = ledger->open.lists = ledger->open.quotes = (pool_t){0};
    ledger->transfers = (pool_t){0};
    ledger->instruments = NULL;
    ledger->sums = NULL;
    ledger->entry_assets = NULL;
    ledger->postings = ledger->trades = ledger->order_rows = ledger->dirty = ledger->touched =
        ledger->scratch = (row_list_t){0};
}

void ledger_write_image(const ledger_t *ledger, char *image)
{
    image_head_t *head = calloc(1, sizeof(image_head_t));
    char *out = image + sizeof(image_head_t);

    INVARIANT(head != NULL && !ledger->failed && ledger->entry_asset_count == 0);
    INVARIANT(ledger->postings.count == 0 && ledger->dirty.count == 0 && ledger->touched.count == 0);
    head->layout = layout();
    head->ledger = *ledger;
    cut_off(&head->ledger);
    memcpy(image, head, sizeof(image_head_t));
    free(head);
    if (ledger->instruments_used > 0)
        memcpy(out, ledger->instruments, instruments_size(ledger));
    out += instruments_size(ledger);
    out = pool_write(&ledger->books.accounts, sizeof(book_entry_t), out);
    out = pool_write(&ledger->open.orders, sizeof(open_order_t), out);
    out = pool_write(&ledger->open.lists, sizeof(order_list_t), out);
    out = pool_write(&ledger->open.quotes, sizeof(open_quote_t), out);
    out = pool_write(&ledger->transfers, sizeof(transfer_t), out);
    INVARIANT(out == image + ledger_image_size(ledger));
}

static bool read_instruments(ledger_t *ledger, const char **in, const char *end)
{
    if (ledger->instruments_used > INSTRUMENT_MAX + 1 || ledger->assets_used > ASSET_MAX + 1)
        return false;
    size_t size = instruments_size(ledger);
    if ((size_t)(end - *in) < size)
        return false;
    ledger->instruments = calloc(ledger->instruments_used + 1, sizeof(ledger_instrument_t));
    ledger->sums = calloc(ledger->assets_used + 1, sizeof(house_sums_t));
    ledger->entry_assets = calloc(ledger->assets_used + 1, sizeof(uint32_t));
    if (ledger->instruments == NULL || ledger->sums == NULL || ledger->entry_assets == NULL)
        return false;
    memcpy(ledger->instruments, *in, size);
    *in += size;
    return true;
}

static bool read_pool(pool_t *pool, size_t item_size, const char **in, const char *end)
{
    *in = pool_read(pool, item_size, *in, end);
    return *in != NULL;
}

/* Orders name places of other pools. */
static bool places_stand(const ledger_t *ledger)
{
    uint32_t lists = ledger->open.lists.used;

    for (uint32_t i = 0; i < ledger->open.orders.used; i++) {
        const open_order_t *order = open_order_at(&ledger->open, i);
        if (order->pays >= ledger->books.accounts.used || order->gets >= ledger->books.accounts.used ||
            order->list > lists || order->version_count > VERSIONS_MAX)
            return false;
    }
    for (uint32_t i = 0; i < lists; i++)
        if (order_list_at(&ledger->open, i)->next > lists || order_list_at(&ledger->open, i)->legs > LEGS_MAX)
            return false;
    for (uint32_t i = 0; i < ledger->open.quotes.used; i++)
        if (open_quote_at(&ledger->open, i)->count > QUOTES_ON_THEIR_WAY_MAX)
            return false;
    return ledger->open.due_first <= lists && ledger->open.due_last <= lists && ledger->group.list <= lists &&
           ledger->group.quote <= ledger->open.quotes.used;
}

ledger_t *ledger_from_image(const char *image, int64_t size)
{
    const char *in = image + sizeof(image_head_t), *end = image + size;
    uint64_t found;

    if (size < (int64_t)sizeof(image_head_t))
        return NULL;
    memcpy(&found, image, sizeof found);
    ledger_t *ledger = malloc(sizeof(ledger_t));
    if (ledger == NULL)
        return NULL;
    memcpy(ledger, image + offsetof(image_head_t, ledger), sizeof(ledger_t));
    cut_off(ledger);
    if (found != layout() || ledger->failed || !read_instruments(ledger, &in, end) ||
        !read_pool(&ledger->books.accounts, sizeof(book_entry_t), &in, end) ||
        !read_pool(&ledger->open.orders, sizeof(open_order_t), &in, end) ||
        !read_pool(&ledger->open.lists, sizeof(order_list_t), &in, end) ||
        !read_pool(&ledger->open.quotes, sizeof(open_quote_t), &in, end) ||
        !read_pool(&ledger->transfers, sizeof(transfer_t), &in, end) || in != end || !places_stand(ledger)) {
        ledger_free(ledger);
        return NULL;
    }
    return ledger;
}
