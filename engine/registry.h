/* What administration has put in the log: assets, instruments, accounts, API keys, sessions, sources. Small tables indexed by id. */
#ifndef BULLRING_ENGINE_REGISTRY_H
#define BULLRING_ENGINE_REGISTRY_H

#include <stdbool.h>
#include <stdint.h>

#include "arena.h"

#define SESSION_ADMIN 1
#define SOURCE_ADMIN 1
#define SOURCES_MAX 64
#define PARTITIONS_MAX 64 /* matchers 1..63; 255 is broadcast */
#define FEE_TIERS 16
#define ACCESS_KEY_SIZE 32
#define KILLED_FIRMS_MAX 16

typedef struct asset {
    char symbol[12];
    int8_t exponent;
    uint8_t exists;
    int64_t external_units; /* deposits - withdrawals: what all balances must sum to */
} asset_t;

/* InstrumentRules; 0 = off. */
typedef struct instrument_filters {
    int64_t market_min_lots;
    int64_t market_max_lots;
    int64_t position_max; /* units of the base asset */
    uint32_t open_orders_max; /* these four per account */
    uint32_t algo_orders_max;
    uint32_t iceberg_orders_max;
    uint32_t order_lists_max;
    uint32_t bid_down_bps;
    uint32_t ask_up_bps;
    uint32_t day_end_second; /* of the UTC day */
    uint16_t amends_max;
    uint16_t iceberg_parts_max;
    uint16_t trailing_above_min, trailing_above_max; /* buy stops, sell take-profits */
    uint16_t trailing_below_min, trailing_below_max;
    uint8_t stp_modes;      /* set of 1 << STP_MODE_..., 0 = all */
    uint8_t notional_flags; /* NOTIONAL_FLAGS_... */
} instrument_filters_t;

typedef struct instrument {
    int64_t tick_size;
    int64_t lot_size;
    int64_t quote_per_tick_lot;
    int64_t base_per_lot;
    int64_t min_lots;
    int64_t max_lots;
    int64_t min_notional;
    int64_t max_notional; /* 0 = only AMOUNT_LIMIT */
    int64_t min_ticks;
    int64_t max_ticks;
    int64_t reference_ticks; /* last trade as of the marks, else the configured one; PX_NULL = none */
    uint32_t base_asset;
    uint32_t quote_asset;
    uint32_t band_up_bps;
    uint32_t band_down_bps;
    uint32_t open_orders;
    instrument_filters_t filters;
    uint8_t partition;
    uint8_t exists;
    uint8_t killed;
    uint8_t traded; /* reference_ticks is a trade; a configured reference no longer replaces it */
    uint8_t type;
    uint8_t state; /* as last ordered; the matcher's is the exact one */
    int8_t price_exponent;
    int8_t quantity_exponent;
    uint16_t clocks; /* schedule entries and volatility band that are on (control.h) */
    char symbol[24];
} instrument_t;

/* Windows are aligned to the clock of the log. */
enum rate {
    RATE_ORDERS_10S,
    RATE_ORDERS_DAY,
    RATE_CANCELS_10S,
    RATES,
};

typedef struct account {
    uint32_t firm;
    uint32_t stp_group;
    uint32_t open_orders;
    uint32_t open_orders_max;
    uint32_t rate_max[RATES]; /* a window, 0 = no limit */
    uint32_t rate_count[RATES]; /* in the window that `rate_window` names */
    uint32_t rate_window[RATES];
    uint64_t reports; /* of the account on partition 0 so far: what a drop copy counts */
    uint8_t exists;
    uint8_t fee_tier;
    uint8_t killed;
    uint8_t locked;
} account_t;

typedef struct api_key {
    char access_key[ACCESS_KEY_SIZE];
    uint8_t material[32];
    uint64_t last_timestamp; /* nonce: the newest logon accepted (PROTOCOL section 5) */
    uint32_t account;
    uint16_t permissions;
    uint8_t credential_type;
    uint8_t exists;
} api_key_t;

typedef struct session {
    uint64_t version;
    uint64_t last_incoming;  /* last client number applied */
    uint64_t reports;        /* numbered reports on partition 0 so far */
    uint64_t last_report;    /* report sequence of the newest of them + 1; 0 = none */
    uint32_t account;
    uint32_t connection;
    uint32_t cod_timeout_ms;
    uint64_t disconnect_ns; /* while waiting: log time at which its orders are canceled */
    uint16_t source;
    uint8_t cod_type;
    uint8_t kind;
    uint8_t bound;
    uint8_t exists;
    uint8_t disconnect_state; /* disconnect.c */
    uint8_t trades;           /* negotiated by a key that may trade: others may not take it over */
} session_t;

typedef struct source {
    int64_t next; /* next ingress ring index the log has not seen */
    uint8_t open;
} source_t;

typedef struct fee_rates {
    int32_t maker;
    int32_t taker;
    uint8_t set;
} fee_rates_t;

typedef struct registry {
    asset_t *assets;
    instrument_t *instruments;
    account_t *accounts;
    api_key_t *keys;
    session_t *sessions;
    fee_rates_t *fees; /* [tier][instrument], instrument 0 = all */
    uint32_t *account_orders; /* [account][partition]: head of the account's open orders */
    source_t sources[SOURCES_MAX];
    uint32_t assets_max, instruments_max, accounts_max, keys_max, sessions_max, partitions_max;
    uint32_t assets_used, instruments_used, accounts_used, keys_used, sessions_used; /* highest id given */
    uint32_t killed_firms[KILLED_FIRMS_MAX]; /* 0 = a free place */
    uint8_t killed_all;
} registry_t;

struct sequencer_config;
void registry_carve(registry_t *registry, arena_t *arena, const struct sequencer_config *config);

static inline asset_t *registry_asset(const registry_t *registry, uint32_t id)
{
    return id != 0 && id <= registry->assets_used && registry->assets[id].exists ? &registry->assets[id] : (asset_t *)0;
}

static inline instrument_t *registry_instrument(const registry_t *registry, uint32_t id)
{
    return id != 0 && id <= registry->instruments_used && registry->instruments[id].exists ? &registry->instruments[id]
                                                                                            : (instrument_t *)0;
}

static inline account_t *registry_account(const registry_t *registry, uint32_t id)
{
    return id != 0 && id <= registry->accounts_used && registry->accounts[id].exists ? &registry->accounts[id]
                                                                                      : (account_t *)0;
}

static inline session_t *registry_session(const registry_t *registry, uint32_t id)
{
    return id != 0 && id <= registry->sessions_used && registry->sessions[id].exists ? &registry->sessions[id]
                                                                                      : (session_t *)0;
}

static inline uint32_t *registry_order_head(const registry_t *registry, uint32_t account, uint8_t partition)
{
    return &registry->account_orders[(uint64_t)account * (registry->partitions_max + 1) + partition];
}

static inline fee_rates_t *registry_fee(const registry_t *registry, uint8_t tier, uint32_t instrument)
{
    return &registry->fees[(uint64_t)tier * (registry->instruments_max + 1) + instrument];
}

api_key_t *registry_key(const registry_t *registry, const char access_key[ACCESS_KEY_SIZE]);

#endif
