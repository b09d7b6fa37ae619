/* Reads: unlogged ingress slots answered from the tables as of the marks, on the reply ring, at most QUERY_ROWS_MAX rows and a
 * QueryEnd. The gateway has already forced the account of unprivileged sessions. */
#include "sequencer_state.h"

#include <string.h>

static void put_balance(sequencer_t *sequencer, const log_slot_t *slot, uint64_t request, const balance_t *balance)
{
    balance_reply_t *reply = reply_begin(sequencer, slot->session, TEMPLATE_BALANCE_REPLY);

    reply->request_id = request;
    reply->available = balance->available;
    reply->held = balance->held;
    reply->at_seq = (uint64_t)sequencer->position;
    reply->account_id = balance->account;
    reply->asset_id = balance->asset;
}

static uint32_t balances(sequencer_t *sequencer, const log_slot_t *slot)
{
    const balance_query_t *query = (const balance_query_t *)slot->block;
    uint32_t first = query->asset_id == 0 ? 1 : query->asset_id;
    uint32_t last = query->asset_id == 0 ? sequencer->registry.assets_used : query->asset_id;
    uint32_t rows = 0;

    if (last > sequencer->registry.assets_used) /* the client's number: the largest would make the loop endless */
        return 0;
    for (uint32_t asset = first; asset <= last && rows < QUERY_ROWS_MAX; asset++) {
        const balance_t *balance = accounts_find(&sequencer->accounts, query->account_id, asset);
        if (balance == NULL)
            continue;
        put_balance(sequencer, slot, query->request_id, balance);
        rows++;
    }
    return rows;
}

static uint8_t status_of(const orders_t *orders, const order_line_t *line)
{
    const order_terms_t *terms = orders_terms(orders, line);

    if ((line->flags & LINE_PENDING) != 0)
        return ORD_STATUS_PENDING_NEW;
    if ((line->flags & LINE_ALGO) != 0 && terms->triggered == 0)
        return ORD_STATUS_UNTRIGGERED;
    return line->filled_lots > 0 ? ORD_STATUS_PARTIALLY_FILLED : ORD_STATUS_NEW;
}

static void put_order(sequencer_t *sequencer, const log_slot_t *slot, uint64_t request, const orders_t *orders,
                      const order_line_t *line)
{
    order_reply_t *reply = reply_begin(sequencer, slot->session, TEMPLATE_ORDER_REPLY);

    reply->request_id = request;
    reply->order_id = line->id;
    reply->cl_ord_id = line->client_id;
    reply->price = (line->flags & LINE_MARKET) != 0 ? PX_NULL : line->limit_ticks;
    reply->order_qty = line->total_lots;
    reply->cum_qty = line->filled_lots;
    reply->hold = line->hold_units;
    reply->at_seq = (uint64_t)sequencer->position;
    reply->instrument_id = line->instrument;
    reply->account_id = line->account;
    reply->session_id = line->session;
    reply->side = line_sells(line) ? SIDE_SELL : SIDE_BUY;
    reply->ord_type = line_ord_type(orders, line);
    reply->time_in_force = (line->flags >> LINE_TIF_SHIFT) & LINE_TIF_MASK;
    reply->ord_status = status_of(orders, line);
}

/* Rows go partition by partition, newest first; `afterOrderId` is an order id with its partition in the top byte, as execIds have
 * it, so that the next query goes on after it. 0 = from the start. */
static uint32_t open_orders(sequencer_t *sequencer, const log_slot_t *slot)
{
    const open_orders_query_t *query = (const open_orders_query_t *)slot->block;
    uint8_t after_partition = (uint8_t)(query->after_order_id >> 56);
    uint64_t after = query->after_order_id & ((UINT64_C(1) << 56) - 1);
    uint32_t rows = 0;

    if (registry_account(&sequencer->registry, query->account_id) == NULL)
        return 0;
    uint8_t partition = after_partition == 0 ? 1 : after_partition;
    for (; partition <= sequencer->config.partitions; partition++) {
        const orders_t *orders = &sequencer->orders[partition];
        uint32_t index = *registry_order_head(&sequencer->registry, query->account_id, partition);
        const order_line_t *from = orders_line(orders, after);
        if (partition == after_partition && from->id == after && from->account == query->account_id)
            index = orders->links[after & orders->mask].next;
        for (; index != 0 && rows < QUERY_ROWS_MAX; index = orders->links[index - 1].next) {
            const order_line_t *line = &orders->lines[index - 1];
            if ((line->flags & LINE_FINAL) != 0 || (query->instrument_id != 0 && query->instrument_id != line->instrument))
                continue;
            put_order(sequencer, slot, query->request_id, orders, line);
            rows++;
        }
    }
    return rows;
}

static uint32_t one_order(sequencer_t *sequencer, const log_slot_t *slot, uint16_t *code)
{
    const order_query_t *query = (const order_query_t *)slot->block;
    const instrument_t *instrument = registry_instrument(&sequencer->registry, query->instrument_id);
    const order_line_t *line = NULL;

    if (instrument == NULL) {
        *code = REJECT_CODE_UNKNOWN_INSTRUMENT;
        return 0;
    }
    const orders_t *orders = &sequencer->orders[instrument->partition];
    if (query->order_id != U64_NULL) {
        line = orders_line(orders, query->order_id);
        if (line->id != query->order_id || line->id == 0 || line->account != query->account_id)
            line = NULL;
    } else if (query->orig_cl_ord_id != U64_NULL)
        line = orders_find_client(orders, query->account_id, query->instrument_id, query->orig_cl_ord_id);
    if (line == NULL || (line->flags & LINE_FINAL) != 0) {
        *code = REJECT_CODE_UNKNOWN_ORDER;
        return 0;
    }
    put_order(sequencer, slot, query->request_id, orders, line);
    return 1;
}

static uint32_t one_key(sequencer_t *sequencer, const log_slot_t *slot, uint16_t *code)
{
    const key_query_t *query = (const key_query_t *)slot->block;
    const api_key_t *key = registry_key(&sequencer->registry, query->access_key_id);

    if (key == NULL) {
        *code = REJECT_CODE_UNKNOWN_KEY;
        return 0;
    }
    key_reply_t *reply = reply_begin(sequencer, slot->session, TEMPLATE_KEY_REPLY);
    reply->request_id = query->request_id;
    reply->last_timestamp = key->last_timestamp;
    memcpy(reply->access_key_id, key->access_key, sizeof(reply->access_key_id));
    memcpy(reply->material, key->material, sizeof(reply->material));
    reply->account_id = key->account;
    reply->permissions = key->permissions;
    reply->credential_type = key->credential_type;
    return 1;
}

static void put_instrument(sequencer_t *sequencer, const log_slot_t *slot, uint64_t request, uint32_t id)
{
    const instrument_t *instrument = &sequencer->registry.instruments[id];
    instrument_reply_t *reply = reply_begin(sequencer, slot->session, TEMPLATE_INSTRUMENT_REPLY);

    reply->request_id = request;
    reply->tick_size = instrument->tick_size;
    reply->lot_size = instrument->lot_size;
    reply->quote_per_tick_lot = instrument->quote_per_tick_lot;
    reply->base_per_lot = instrument->base_per_lot;
    reply->instrument_id = id;
    reply->base_asset_id = instrument->base_asset;
    reply->quote_asset_id = instrument->quote_asset;
    reply->assigned_partition = instrument->partition;
    reply->price_exponent = instrument->price_exponent;
    reply->qty_exponent = instrument->quantity_exponent;
    reply->state = instrument->state;
    memcpy(reply->symbol, instrument->symbol, sizeof(reply->symbol));
    reply->open_orders = instrument->open_orders;
}

static void put_asset(sequencer_t *sequencer, const log_slot_t *slot, uint64_t request, uint32_t id)
{
    const asset_t *asset = &sequencer->registry.assets[id];
    asset_reply_t *reply = reply_begin(sequencer, slot->session, TEMPLATE_ASSET_REPLY);

    reply->request_id = request;
    reply->total = sequencer->accounts.asset_totals[id];
    reply->asset_id = id;
    reply->exponent = asset->exponent;
    memcpy(reply->symbol, asset->symbol, sizeof(reply->symbol));
}

static void put_account(sequencer_t *sequencer, const log_slot_t *slot, uint64_t request, uint32_t id)
{
    const account_t *account = &sequencer->registry.accounts[id];
    account_reply_t *reply = reply_begin(sequencer, slot->session, TEMPLATE_ACCOUNT_REPLY);

    reply->request_id = request;
    reply->account_id = id;
    reply->stp_group_id = account->stp_group;
    reply->firm_id = account->firm;
    reply->open_orders = account->open_orders;
    reply->fee_tier = account->fee_tier;
}

static void put_session(sequencer_t *sequencer, const log_slot_t *slot, uint64_t request, uint32_t id)
{
    const session_t *session = &sequencer->registry.sessions[id];
    session_reply_t *reply = reply_begin(sequencer, slot->session, TEMPLATE_SESSION_REPLY);

    reply->request_id = request;
    reply->session_ver_id = session->version;
    reply->last_incoming_seq_no = session->last_incoming;
    reply->session_id = id;
    reply->account_id = session->account;
    reply->source = session->source;
    reply->kind = session->kind;
    reply->bound = session->bound;
}

/* Instrument, asset, account and session queries share their shape: request id, then the id asked for (0 = all). */
static uint32_t by_id(sequencer_t *sequencer, const log_slot_t *slot)
{
    const account_query_t *query = (const account_query_t *)slot->block;
    const registry_t *registry = &sequencer->registry;
    uint32_t wanted = query->account_id, rows = 0;
    uint32_t used = slot->template_id == TEMPLATE_INSTRUMENT_QUERY ? registry->instruments_used
                    : slot->template_id == TEMPLATE_ASSET_QUERY    ? registry->assets_used
                    : slot->template_id == TEMPLATE_ACCOUNT_QUERY  ? registry->accounts_used
                                                                   : registry->sessions_used;

    if (wanted > used) /* the client's number: the largest would make the loop endless */
        return 0;
    for (uint32_t id = wanted == 0 ? 1 : wanted; id <= (wanted == 0 ? used : wanted) && rows < QUERY_ROWS_MAX; id++) {
        if (slot->template_id == TEMPLATE_INSTRUMENT_QUERY && registry_instrument(registry, id) != NULL)
            put_instrument(sequencer, slot, query->request_id, id);
        else if (slot->template_id == TEMPLATE_ASSET_QUERY && registry_asset(registry, id) != NULL)
            put_asset(sequencer, slot, query->request_id, id);
        else if (slot->template_id == TEMPLATE_ACCOUNT_QUERY && registry_account(registry, id) != NULL)
            put_account(sequencer, slot, query->request_id, id);
        else if (slot->template_id == TEMPLATE_SESSION_QUERY && registry_session(registry, id) != NULL)
            put_session(sequencer, slot, query->request_id, id);
        else
            continue;
        rows++;
    }
    return rows;
}

/* Session 0 is a gateway asking for itself. A client's session sees its own account and the public tables. */
static bool may_ask(const sequencer_t *sequencer, const log_slot_t *slot)
{
    const session_t *session = registry_session(&sequencer->registry, slot->session);
    uint32_t account;

    if (slot->session == 0 || (session != NULL && session->kind == SESSION_KIND_PRIVILEGED))
        return true;
    switch (slot->template_id) {
    case TEMPLATE_BALANCE_QUERY:
        account = ((const balance_query_t *)slot->block)->account_id;
        break;
    case TEMPLATE_OPEN_ORDERS_QUERY:
        account = ((const open_orders_query_t *)slot->block)->account_id;
        break;
    case TEMPLATE_ORDER_QUERY:
        account = ((const order_query_t *)slot->block)->account_id;
        break;
    case TEMPLATE_ACCOUNT_QUERY:
        account = ((const account_query_t *)slot->block)->account_id;
        break;
    default:
        return slot->template_id == TEMPLATE_INSTRUMENT_QUERY || slot->template_id == TEMPLATE_ASSET_QUERY;
    }
    return session != NULL && account == session->account;
}

static uint32_t answer_rows(sequencer_t *sequencer, const log_slot_t *slot, uint16_t *code)
{
    if (!may_ask(sequencer, slot)) {
        *code = REJECT_CODE_PERMISSION_DENIED;
        return 0;
    }
    switch (slot->template_id) {
    case TEMPLATE_BALANCE_QUERY:
        return balances(sequencer, slot);
    case TEMPLATE_OPEN_ORDERS_QUERY:
        return open_orders(sequencer, slot);
    case TEMPLATE_ORDER_QUERY:
        return one_order(sequencer, slot, code);
    case TEMPLATE_KEY_QUERY:
        return one_key(sequencer, slot, code);
    default:
        return by_id(sequencer, slot);
    }
}

void answer_query(sequencer_t *sequencer, const log_slot_t *slot)
{
    uint16_t code = REJECT_CODE_NONE;
    uint64_t request;

    sequencer->counters[SEQUENCER_QUERIES]++;
    memcpy(&request, slot->block, sizeof(request));
    uint32_t rows = answer_rows(sequencer, slot, &code);

    query_end_t *end = reply_begin(sequencer, slot->session, TEMPLATE_QUERY_END);
    end->request_id = request;
    end->at_seq = (uint64_t)sequencer->position;
    end->count = rows;
    end->code = code;
    end->ref_template_id = slot->template_id;
}
