/* Incremental state hash: a sum, modulo 2^128, of one 128-bit mix per item (a resting order, a balance).
 *
 * Adding, changing or removing one item costs one or two mixes, whatever the size of the state; the sum does not depend on the
 * order in which items were added. It detects divergence between replicas; it is no defence against somebody who chooses ids. */
#ifndef BULLRING_STATE_HASH_H
#define BULLRING_STATE_HASH_H

#include <stdint.h>

#include "platform.h"

typedef struct state_hash {
    uint64_t low;
    uint64_t high;
} state_hash_t;

/* First 64 binary digits after the point of the square roots of 2, 3, 5 and 7: nothing up the sleeve. */
#define STATE_HASH_C0 UINT64_C(0x6a09e667f3bcc908)
#define STATE_HASH_C1 UINT64_C(0xbb67ae8584caa73b)
#define STATE_HASH_C2 UINT64_C(0x3c6ef372fe94f82b)
#define STATE_HASH_C3 UINT64_C(0xa54ff53a5f1d36f1)

static inline uint128_t state_hash_mix(uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
    uint128_t first = (uint128_t)(a ^ STATE_HASH_C0) * (b ^ STATE_HASH_C1);
    uint64_t low = (uint64_t)first;
    uint64_t high = (uint64_t)(first >> 64);
    uint128_t second = (uint128_t)(low ^ c ^ STATE_HASH_C2) * (high ^ d ^ STATE_HASH_C3);
    /* The halves crosswise, so that every output bit sees both products. */
    return second ^ (((uint128_t)low << 64) | high);
}

static inline void state_hash_add(state_hash_t *hash, uint128_t mix)
{
    uint128_t sum = (((uint128_t)hash->high << 64) | hash->low) + mix;
    hash->low = (uint64_t)sum;
    hash->high = (uint64_t)(sum >> 64);
}

static inline void state_hash_remove(state_hash_t *hash, uint128_t mix)
{
    state_hash_add(hash, -mix);
}

#endif
