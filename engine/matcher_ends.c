/* How orders end: canceled, expired, prevented, taken along by the other leg of a list. */
#include "engine/events.h"
#include "engine/reports.h"

static void leave_auction_list(const book_store_t *store, book_t *book, extra_t *extra)
{
    level_t *list = &book->auction_only;
    *link_or(&store->extras[extra->prev].next, &list->head, extra->prev) = extra->next;
    *link_or(&store->extras[extra->next].prev, &list->tail, extra->next) = extra->prev;
    extra->flags &= ~(uint32_t)EXTRA_AUCTION_ONLY;
}

void matcher_unseat(matcher_t *matcher, order_t *order)
{
    book_store_t *store = &matcher->store;
    book_t *book = book_of(store, order);
    extra_t *extra = extra_of(store, order);
    if (extra != NULL && (extra->flags & EXTRA_OFF_BOOK) != 0)
        trigger_leave(matcher, order, extra);
    else if ((order->flags & ORDER_OFF_BOOK) == 0)
        book_detach(store, book, order_side(order), order);
}

void matcher_free_order(matcher_t *matcher, order_t *order)
{
    book_store_t *store = &matcher->store;
    book_account_unlink(store, order->account, slot_of(store, order));
    if (UNLIKELY((order->flags & ORDER_EXTRA) != 0)) {
        book_t *book = book_of(store, order);
        extra_t *extra = store->extras + order->extra;
        book_unseen_remove(book, order, extra);
        if ((extra->flags & EXTRA_DATED) != 0)
            expiry_clear(matcher, book, extra);
        if ((extra->flags & EXTRA_AUCTION_ONLY) != 0)
            leave_auction_list(store, book, extra);
        extra->owner = store->extra_slab->free;
        extra->flags = 0;
        store->extra_slab->free = order->extra;
    }
    order->id = 0;
}

/* Without a look at its peer. */
static void end_alone(matcher_t *matcher, order_t *order, ending_t ending)
{
    book_store_t *store = &matcher->store;
    const order_rest_t *rest = rest_of(store, order);
    cancellation_t cancellation = {.session = rest->session,
                                   .reason = ending.reason,
                                   .cl_ord_id = order->cl_ord_id,
                                   .client_tag = rest->client_tag,
                                   .ref_seq_num = ending.ref_seq_num,
                                   .quantity = order_open(store, order),
                                   .status = ending.status};
    report_canceled(matcher, order, &cancellation, MAYBE_LAST);
    if ((order->flags & ORDER_OFF_BOOK) == 0)
        event_delete(matcher, book_of(store, order), order);
    matcher_unseat(matcher, order);
    matcher_free_order(matcher, order);
}

static void forget_peer(const book_store_t *store, const order_t *order)
{
    extra_t *extra = extra_of(store, order);
    book_t *book = book_of(store, order);
    book_unseen_remove(book, order, extra);
    extra->peer = 0;
    book_unseen_add(book, order, extra);
}

/* The other leg, if it is still there; afterwards neither knows of the other. */
static order_t *part_from_peer(const matcher_t *matcher, extra_t *extra)
{
    const book_store_t *store = &matcher->store;
    uint64_t id = extra->peer;
    if (id == 0)
        return NULL;
    order_t *peer = store->orders + order_slot(store, id);
    forget_peer(store, store->orders + extra->owner);
    if (peer->id != id)
        return NULL;
    forget_peer(store, peer);
    return peer;
}

void matcher_end_peer(matcher_t *matcher, extra_t *extra, ending_t ending)
{
    order_t *peer = part_from_peer(matcher, extra);
    if (peer != NULL)
        end_alone(matcher, peer, ending);
}

void matcher_end_order(matcher_t *matcher, order_t *order, ending_t ending)
{
    extra_t *extra = extra_of(&matcher->store, order);
    order_t *peer = extra != NULL ? part_from_peer(matcher, extra) : NULL;
    end_alone(matcher, order, ending);
    if (peer != NULL)
        end_alone(matcher, peer,
                  (ending_t){.reason = CANCEL_REASON_LIST_CANCELED, .status = ORD_STATUS_CANCELED});
}
