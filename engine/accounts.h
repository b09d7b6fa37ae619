/* Money: available and held per (account, asset), in internal units of the asset.
 *
 * One open-addressed table of 32-byte entries, load at most 0.5, never deleted from. Every change goes through balance_change(),
 * which keeps the table's incremental 128-bit hash and the per-asset totals that conservation is checked against. Account 0 is
 * the venue's own: fees and rebates; ACCOUNT_DUST is its second one. Settling is a pure addition and cannot fail (CORE K4); only admission compares. */
#ifndef BULLRING_ENGINE_ACCOUNTS_H
#define BULLRING_ENGINE_ACCOUNTS_H

#include <stdbool.h>
#include <stdint.h>

#include "arena.h"
#include "platform.h"

#define ACCOUNT_VENUE 0
#define ACCOUNT_DUST UINT32_C(0xfffffffe) /* collects what only rounding made of fees */
#define AMOUNT_LIMIT (INT64_C(1) << 62) /* supply of an asset and notional of an order stay below (CORE section 4) */

typedef struct balance {
    uint32_t account;
    uint32_t asset; /* 0 = empty entry */
    int64_t available;
    int64_t held;
    uint64_t version; /* changes so far */
} balance_t;

typedef struct accounts {
    balance_t *entries;
    uint64_t mask;
    uint64_t used;
    uint64_t used_max;
    uint64_t seed;
    int64_t *asset_totals; /* sum of available + held, by asset */
    uint128_t hash;
} accounts_t;

void accounts_carve(accounts_t *accounts, arena_t *arena, uint32_t balances_max, uint32_t assets_max);

/* NULL if the account never had the asset. */
balance_t *accounts_find(const accounts_t *accounts, uint32_t account, uint32_t asset);

/* The entry, made if needed. The caller has checked accounts_has_room(). */
balance_t *accounts_obtain(accounts_t *accounts, uint32_t account, uint32_t asset);

bool accounts_has_room(const accounts_t *accounts, uint32_t entries);

void accounts_prefetch(const accounts_t *accounts, uint32_t account, uint32_t asset);

void balance_change(accounts_t *accounts, balance_t *balance, int64_t available_delta, int64_t held_delta);

/* Recount everything from the entries; true if totals, hash and signs agree. For tests and audits. */
bool accounts_check(const accounts_t *accounts, uint32_t assets_max);

#endif
