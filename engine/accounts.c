#include "accounts.h"

#include "invariant.h"
#include "mix.h"
#include "state_hash.h"

static uint64_t power_of_two_above(uint64_t value)
{
    uint64_t power = 1;
    while (power < value)
        power <<= 1;
    return power;
}

void accounts_carve(accounts_t *accounts, arena_t *arena, uint32_t balances_max, uint32_t assets_max)
{
    uint64_t capacity = power_of_two_above((uint64_t)balances_max * 2);

    accounts->entries = arena_take(arena, capacity, sizeof(balance_t));
    accounts->asset_totals = arena_take(arena, (size_t)assets_max + 1, sizeof(int64_t));
    accounts->mask = capacity - 1;
    accounts->used_max = balances_max;
}

static inline uint64_t position_of(const accounts_t *accounts, uint32_t account, uint32_t asset)
{
    return mix64((uint64_t)account << 32 | asset, accounts->seed) & accounts->mask;
}

balance_t *accounts_find(const accounts_t *accounts, uint32_t account, uint32_t asset)
{
    uint64_t position = position_of(accounts, account, asset);

    /* Ends: the load is at most a half, so an empty entry exists. */
    for (;;) {
        balance_t *entry = &accounts->entries[position];
        if (entry->asset == asset && entry->account == account)
            return entry;
        if (entry->asset == 0)
            return NULL;
        position = (position + 1) & accounts->mask;
    }
}

static inline uint128_t hash_of(const balance_t *balance)
{
    return state_hash_mix((uint64_t)balance->account << 32 | balance->asset, (uint64_t)balance->available,
                  (uint64_t)balance->held, UINT64_C(0x62616c616e6365));
}

balance_t *accounts_obtain(accounts_t *accounts, uint32_t account, uint32_t asset)
{
    INVARIANT(asset != 0);
    uint64_t position = position_of(accounts, account, asset);

    for (;;) {
        balance_t *entry = &accounts->entries[position];
        if (entry->asset == asset && entry->account == account)
            return entry;
        if (entry->asset == 0) {
            INVARIANT(accounts->used < accounts->used_max);
            accounts->used++;
            entry->account = account;
            entry->asset = asset;
            accounts->hash += hash_of(entry);
            return entry;
        }
        position = (position + 1) & accounts->mask;
    }
}

bool accounts_has_room(const accounts_t *accounts, uint32_t entries)
{
    return accounts->used + entries <= accounts->used_max;
}

void accounts_prefetch(const accounts_t *accounts, uint32_t account, uint32_t asset)
{
    PREFETCH(&accounts->entries[position_of(accounts, account, asset)]);
}

void balance_change(accounts_t *accounts, balance_t *balance, int64_t available_delta, int64_t held_delta)
{
    accounts->hash -= hash_of(balance);
    balance->available += available_delta;
    balance->held += held_delta;
    balance->version++;
    accounts->hash += hash_of(balance);
    accounts->asset_totals[balance->asset] += available_delta + held_delta;
    INVARIANT(balance->held >= 0);
    /* The venue's own account may owe: a rebate can be booked before the fee that pays for it. */
    INVARIANT(balance->available >= 0 || balance->account == ACCOUNT_VENUE);
}

bool accounts_check(const accounts_t *accounts, uint32_t assets_max)
{
    uint128_t hash = 0;
    uint64_t used = 0;

    for (uint64_t i = 0; i <= accounts->mask; i++) {
        const balance_t *entry = &accounts->entries[i];
        if (entry->asset == 0)
            continue;
        used++;
        hash += hash_of(entry);
        if (entry->held < 0 || (entry->available < 0 && entry->account != ACCOUNT_VENUE))
            return false;
    }
    for (uint32_t asset = 1; asset <= assets_max; asset++) {
        int128_t total = 0;
        for (uint64_t i = 0; i <= accounts->mask; i++)
            if (accounts->entries[i].asset == asset)
                total += (int128_t)accounts->entries[i].available + accounts->entries[i].held;
        if (total != accounts->asset_totals[asset])
            return false;
    }
    return hash == accounts->hash && used == accounts->used;
}
