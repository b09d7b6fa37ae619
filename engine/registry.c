#include "registry.h"

#include <string.h>

#include "sequencer.h"

void registry_carve(registry_t *registry, arena_t *arena, const struct sequencer_config *config)
{
    registry->assets_max = config->assets_max;
    registry->instruments_max = config->instruments_max;
    registry->accounts_max = config->accounts_max;
    registry->keys_max = config->keys_max;
    registry->sessions_max = config->sessions_max;
    registry->partitions_max = config->partitions;
    registry->assets = arena_take(arena, (size_t)config->assets_max + 1, sizeof(asset_t));
    registry->instruments = arena_take(arena, (size_t)config->instruments_max + 1, sizeof(instrument_t));
    registry->accounts = arena_take(arena, (size_t)config->accounts_max + 1, sizeof(account_t));
    registry->keys = arena_take(arena, (size_t)config->keys_max + 1, sizeof(api_key_t));
    registry->sessions = arena_take(arena, (size_t)config->sessions_max + 1, sizeof(session_t));
    registry->fees = arena_take(arena, (size_t)FEE_TIERS * (config->instruments_max + 1), sizeof(fee_rates_t));
    registry->account_orders =
        arena_take(arena, ((size_t)config->accounts_max + 1) * (config->partitions + 1), sizeof(uint32_t));
}

api_key_t *registry_key(const registry_t *registry, const char access_key[ACCESS_KEY_SIZE])
{
    /* Logons are rare and keys few: a scan needs no index that a snapshot would have to carry. */
    for (uint32_t id = 1; id <= registry->keys_used; id++) {
        api_key_t *key = &registry->keys[id];
        if (key->exists && memcmp(key->access_key, access_key, ACCESS_KEY_SIZE) == 0)
            return key;
    }
    return NULL;
}
