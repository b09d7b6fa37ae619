/* A random flow of commands for the native engine tests: accounts of several kinds on two gateways' sessions, orders of every
 * type, cancels and replaces that race with their own reports, mass cancels, administration. */
#ifndef BULLRING_TESTS_ENGINE_FLOW_H
#define BULLRING_TESTS_ENGINE_FLOW_H

#include "engine_kit.h"

#define FLOW_ACCOUNTS 12
#define FLOW_SESSIONS (FLOW_ACCOUNTS + 3) /* the operator's; one an account; a second of account 1; a drop copy */
#define FLOW_INSTRUMENTS 5
#define FLOW_ASSETS 3
#define FLOW_RECENT 32
#define FLOW_MIDDLE 1000 /* ticks */

typedef struct recent_order {
    uint64_t order_id; /* 0 = not known yet */
    uint64_t client_id;
    uint32_t instrument;
    uint32_t session;
} recent_order_t;

typedef struct flow {
    world_t *world;
    chance_t chance;
    uint64_t seq_nums[FLOW_SESSIONS + 1];
    uint64_t client_ids;
    uint64_t timestamps;
    recent_order_t recent[FLOW_RECENT];
    uint32_t recent_next;
    uint64_t commands;
} flow_t;

static inline uint32_t flow_account(uint32_t session)
{
    return session == FLOW_ACCOUNTS + 2 || session == FLOW_ACCOUNTS + 3 ? 1 : session - 1;
}

static inline uint16_t flow_source(uint32_t session)
{
    return session == SESSION_ADMIN_ID || session % 3 == 0 ? 1 : 2;
}

static inline void *flow_slot(flow_t *flow, log_slot_t *slot, uint16_t template_id, uint32_t session)
{
    memset(slot, 0, sizeof(*slot));
    slot->session = session;
    slot->template_id = template_id;
    slot->version = ORDERS_SCHEMA_VERSION;
    slot->seq_num = ++flow->seq_nums[session];
    slot->ingress_ns = flow->world->now_ns;
    return slot->block;
}

/* Waits, as a gateway would, while the ring is full. */
static inline void flow_put(flow_t *flow, const log_slot_t *slot)
{
    while (!world_put(flow->world, flow_source(slot->session), slot))
        world_stir(flow->world, &flow->chance);
    flow->commands++;
}

/* ---- setting up --------------------------------------------------------------------------------------------------------- */

static inline void flow_admin(flow_t *flow, uint16_t template_id, const void *block, size_t size)
{
    log_slot_t slot;
    memcpy(flow_slot(flow, &slot, template_id, SESSION_ADMIN_ID), block, size);
    flow_put(flow, &slot);
    world_run(flow->world);
}

static inline void flow_deposit(flow_t *flow, uint32_t account, uint32_t asset, int64_t amount)
{
    balance_adjust_t block = {.amount = amount, .account_id = account, .asset_id = asset, .kind = BALANCE_KIND_ADJUSTMENT};
    flow_admin(flow, TEMPLATE_BALANCE_ADJUST, &block, sizeof(block));
}

/* Sessions of source 2 come with their account's key, as through a gateway. */
static inline void flow_bind(flow_t *flow, uint32_t session, uint64_t version)
{
    log_slot_t slot;
    bool keyed = flow_source(session) == 2;
    session_negotiate_t *negotiate = flow_slot(flow, &slot, TEMPLATE_SESSION_NEGOTIATE, session);

    flow->seq_nums[session] = 0;
    slot.seq_num = 0;
    *negotiate = (session_negotiate_t){.session_ver_id = version, .session_id = session, .connection_id = session};
    negotiate->timestamp = ++flow->timestamps;
    if (keyed)
        snprintf(negotiate->access_key_id, sizeof(negotiate->access_key_id), "key-%u", flow_account(session));
    flow_put(flow, &slot);
    session_bind_t *bind = flow_slot(flow, &slot, TEMPLATE_SESSION_BIND, session);
    flow->seq_nums[session] = 0;
    slot.seq_num = 0;
    *bind = (session_bind_t){.session_ver_id = version, .next_seq_no = 1, .session_id = session, .connection_id = session};
    bind->timestamp = ++flow->timestamps;
    if (keyed)
        snprintf(bind->access_key_id, sizeof(bind->access_key_id), "key-%u", flow_account(session));
    flow_put(flow, &slot);
}

static inline void flow_instrument(flow_t *flow, uint32_t id)
{
    instrument_add_t add = {.tick_size = 1, .lot_size = 1, .quote_per_tick_lot = id == FLOW_INSTRUMENTS ? 64 : id, .base_per_lot = id == 2 ? 1000 : 1,
                            .base_asset_id = id % 2 + 1, .quote_asset_id = 3};
    snprintf(add.symbol, sizeof(add.symbol), "PAIR-%u", id);
    flow_admin(flow, TEMPLATE_INSTRUMENT_ADD, &add, sizeof(add));
    instrument_limits_t limits = {.min_qty = 1, .max_qty = 1000, .min_px = id == 4 ? 0 : 1, .max_px = 5000, .reference_px = FLOW_MIDDLE,
                                  .instrument_id = id, .band_up_bps = id == 3 ? 100 : 2000, .band_down_bps = id == 4 ? 0 : 2000};
    if (id != FLOW_INSTRUMENTS) /* the last one stays without limits */
        flow_admin(flow, TEMPLATE_INSTRUMENT_LIMITS, &limits, sizeof(limits));
}

static inline void flow_accounts(flow_t *flow, int64_t wealth)
{
    for (uint32_t id = 1; id <= FLOW_ACCOUNTS; id++) {
        account_create_t create = {.stp_group_id = id % 4 == 0 ? 7 : 0, .fee_tier = (uint8_t)(id % 3)};
        flow_admin(flow, TEMPLATE_ACCOUNT_CREATE, &create, sizeof(create));
        for (uint32_t asset = 1; asset <= FLOW_ASSETS; asset++)
            if (id != 5 || asset != 3) /* one account without quote money */
                flow_deposit(flow, id, asset, asset == 3 ? wealth * FLOW_MIDDLE : wealth);
        key_create_t key = {.account_id = id, .credential_type = 1};
        snprintf(key.access_key_id, sizeof(key.access_key_id), "key-%u", id);
        flow_admin(flow, TEMPLATE_KEY_CREATE, &key, sizeof(key));
    }
    for (uint32_t session = 2; session <= FLOW_SESSIONS; session++) {
        session_create_t create = {.account_id = flow_account(session),
                                   .kind = session == FLOW_SESSIONS ? SESSION_KIND_DROP_COPY : SESSION_KIND_ORDER_ENTRY};
        flow_admin(flow, TEMPLATE_SESSION_CREATE, &create, sizeof(create));
        flow_bind(flow, session, 1);
    }
}

static inline void flow_note(void *context, const report_slot_t *report)
{
    flow_t *flow = context;
    const order_accepted_t *accepted = (const order_accepted_t *)report->block;

    if (report->template_id != TEMPLATE_ORDER_ACCEPTED)
        return;
    for (uint32_t i = 0; i < FLOW_RECENT; i++)
        if (flow->recent[i].client_id == accepted->cl_ord_id && flow->recent[i].session == report->session)
            flow->recent[i].order_id = accepted->order_id;
}

/* `wealth` lots a account: little makes orders fail for want of money. */
static inline void flow_open(flow_t *flow, world_t *world, uint64_t seed, int64_t wealth)
{
    static const char *symbols[] = {"ALPHA", "BETA", "COIN"};
    static const fee_tier_set_t fees[] = {{.maker_rate = 100, .taker_rate = 500},
                                          {.maker_rate = -50, .taker_rate = 700, .tier = 1},
                                          {.maker_rate = -300, .taker_rate = 333, .tier = 1, .instrument_id = 1}};

    memset(flow, 0, sizeof(*flow));
    flow->world = world;
    flow->chance.state = seed;
    world->on_report = flow_note;
    world->context = flow;
    for (int i = 0; i < FLOW_ASSETS; i++) {
        asset_add_t add = {.exponent = -8};
        strncpy(add.symbol, symbols[i], sizeof(add.symbol) - 1);
        flow_admin(flow, TEMPLATE_ASSET_ADD, &add, sizeof(add));
    }
    for (uint32_t id = 1; id <= FLOW_INSTRUMENTS; id++)
        flow_instrument(flow, id);
    for (size_t i = 0; i < sizeof(fees) / sizeof(fees[0]); i++)
        flow_admin(flow, TEMPLATE_FEE_TIER_SET, &fees[i], sizeof(fees[i]));
    flow_accounts(flow, wealth);
    world_run(world);
}

/* ---- commands ------------------------------------------------------------------------------------------------------------ */

static inline int64_t flow_price(flow_t *flow)
{
    return FLOW_MIDDLE - 8 + chance_below(&flow->chance, 17);
}

static inline int64_t flow_quantity(flow_t *flow)
{
    return chance_percent(&flow->chance, 3) ? 200 : 1 + chance_below(&flow->chance, 20);
}

static inline void flow_new_order(flow_t *flow, log_slot_t *slot, uint32_t session)
{
    chance_t *chance = &flow->chance;
    new_order_single_t *block = flow_slot(flow, slot, TEMPLATE_NEW_ORDER_SINGLE, session);
    uint32_t kind = chance_below(chance, 100);

    *block = (new_order_single_t){.cl_ord_id = chance_percent(chance, 5) ? 0 : ++flow->client_ids,
                                  .price = flow_price(flow),
                                  .order_qty = flow_quantity(flow),
                                  .display_qty = QTY_OPT_NULL,
                                  .stop_px = PX_OPT_NULL,
                                  .expire_time = TIME_SEC_OPT_NULL,
                                  .client_tag = chance_next(chance),
                                  .instrument_id = 1 + chance_below(chance, FLOW_INSTRUMENTS),
                                  .side = SIDE_BUY + chance_below(chance, 2),
                                  .ord_type = ORD_TYPE_LIMIT,
                                  .time_in_force = TIME_IN_FORCE_GTC,
                                  .stp_mode = (uint8_t)chance_below(chance, 6)};
    if (kind < 10)
        block->time_in_force = TIME_IN_FORCE_IOC;
    else if (kind < 20)
        block->time_in_force = TIME_IN_FORCE_FOK;
    else if (kind < 30)
        block->exec_inst = EXEC_INST_POST_ONLY;
    else if (kind < 38) {
        block->ord_type = ORD_TYPE_MARKET;
        block->price = PX_OPT_NULL;
    } else if (kind < 42)
        block->price = chance_percent(chance, 50) ? 1 : FLOW_MIDDLE * 6 / 5; /* sweeps, or rests far away */
    flow->recent[flow->recent_next++ % FLOW_RECENT] =
        (recent_order_t){.client_id = block->cl_ord_id, .instrument = block->instrument_id, .session = session};
}

/* An order of late, by either id, by its own session mostly. */
static inline recent_order_t *flow_pick(flow_t *flow, uint32_t *session, uint64_t *order_id, uint64_t *client_id)
{
    uint32_t among = chance_percent(&flow->chance, 60) ? 4 : FLOW_RECENT;
    uint32_t back = 1 + chance_below(&flow->chance, among);
    recent_order_t *order = &flow->recent[(flow->recent_next + FLOW_RECENT - back) % FLOW_RECENT];

    if (order->session != 0 && chance_percent(&flow->chance, 95))
        *session = order->session;
    bool by_client = order->order_id == 0 || chance_percent(&flow->chance, 40);
    *order_id = by_client ? ORDER_ID_OPT_NULL : order->order_id;
    *client_id = by_client ? order->client_id : ORDER_ID_OPT_NULL;
    return order;
}

static inline void flow_cancel(flow_t *flow, log_slot_t *slot, uint32_t session)
{
    uint64_t order_id, client_id;
    const recent_order_t *order = flow_pick(flow, &session, &order_id, &client_id);
    order_cancel_request_t *block = flow_slot(flow, slot, TEMPLATE_ORDER_CANCEL_REQUEST, session);

    *block = (order_cancel_request_t){.cl_ord_id = ++flow->client_ids,
                                      .orig_cl_ord_id = client_id,
                                      .order_id = order_id,
                                      .client_tag = 5,
                                      .instrument_id = order->instrument};
}

static inline void flow_replace(flow_t *flow, log_slot_t *slot, uint32_t session)
{
    uint64_t order_id, client_id;
    recent_order_t *order = flow_pick(flow, &session, &order_id, &client_id);
    order_replace_request_t *block = flow_slot(flow, slot, TEMPLATE_ORDER_REPLACE_REQUEST, session);

    *block = (order_replace_request_t){
        .cl_ord_id = chance_percent(&flow->chance, 50) ? ++flow->client_ids : 0,
        .orig_cl_ord_id = client_id,
        .order_id = order_id,
        .price = chance_percent(&flow->chance, 70) ? flow_price(flow) : PX_OPT_NULL,
        .order_qty = chance_percent(&flow->chance, 60) ? flow_quantity(flow) : QTY_OPT_NULL,
        .display_qty = QTY_OPT_NULL,
        .instrument_id = order->instrument,
    };
    /* The next change may name the order by the id that is in flight. */
    if (block->cl_ord_id != 0 && chance_percent(&flow->chance, 50))
        order->client_id = block->cl_ord_id;
}

static inline void flow_mass_cancel(flow_t *flow, log_slot_t *slot, uint32_t session)
{
    mass_cancel_request_t *block = flow_slot(flow, slot, TEMPLATE_MASS_CANCEL_REQUEST, session);

    block->cl_ord_id = ++flow->client_ids;
    block->instrument_id = chance_percent(&flow->chance, 50) ? 0 : 1 + chance_below(&flow->chance, FLOW_INSTRUMENTS);
    block->side = (uint8_t)chance_below(&flow->chance, 3);
    block->scope = (uint8_t)chance_below(&flow->chance, 2);
}

static inline void flow_administer(flow_t *flow, log_slot_t *slot)
{
    static const uint8_t states[] = {MARKET_STATE_CANCEL_ONLY, MARKET_STATE_HALTED};
    chance_t *chance = &flow->chance;
    uint32_t instrument = 1 + chance_below(chance, FLOW_INSTRUMENTS), account = 1 + chance_below(chance, FLOW_ACCOUNTS);

    switch (chance_below(chance, 3)) {
    case 0: {
        instrument_state_t *block = flow_slot(flow, slot, TEMPLATE_INSTRUMENT_STATE, SESSION_ADMIN_ID);
        block->instrument_id = instrument;
        block->state = chance_percent(chance, 85) ? (uint8_t)MARKET_STATE_CONTINUOUS : states[chance_below(chance, 2)];
        break;
    }
    case 1: {
        balance_adjust_t *block = flow_slot(flow, slot, TEMPLATE_BALANCE_ADJUST, SESSION_ADMIN_ID);
        *block = (balance_adjust_t){.amount = (int64_t)chance_below(chance, 20001) - 10000, .account_id = account,
                                    .asset_id = 1 + chance_below(chance, FLOW_ASSETS), .kind = BALANCE_KIND_ADJUSTMENT};
        break;
    }
    default: {
        account_limits_t *block = flow_slot(flow, slot, TEMPLATE_ACCOUNT_LIMITS, SESSION_ADMIN_ID);
        *block = (account_limits_t){.account_id = account, .open_orders_max = 5 + chance_below(chance, 100),
                                    .fee_tier = (uint8_t)chance_below(chance, 3)};
        break;
    }
    }
}

/* One command of somebody into an ingress ring. */
static inline void flow_command(flow_t *flow)
{
    log_slot_t slot;
    uint32_t session = 2 + chance_below(&flow->chance, FLOW_SESSIONS - 1);
    uint32_t kind = chance_below(&flow->chance, 1000);

    if (kind < 560)
        flow_new_order(flow, &slot, session);
    else if (kind < 740)
        flow_cancel(flow, &slot, session);
    else if (kind < 985)
        flow_replace(flow, &slot, session);
    else if (kind < 993)
        flow_mass_cancel(flow, &slot, session);
    else
        flow_administer(flow, &slot);
    flow_put(flow, &slot);
}

/* Commands with any interleaving of polls between them; time jumps now and then, for ticks, marks and hash marks. */
static inline void flow_drive(flow_t *flow, uint64_t commands)
{
    for (uint64_t i = 0; i < commands; i++) {
        flow_command(flow);
        for (uint32_t polls = chance_below(&flow->chance, 5); polls > 0; polls--)
            world_stir(flow->world, &flow->chance);
        uint32_t jump = chance_below(&flow->chance, 1000);
        world_later(flow->world, jump == 0 ? 1100000000 : jump < 5 ? 12000000 : jump);
    }
}

#endif
