/* Incremental hashes of state: sums, modulo 2^128, of one term per item. Adding, changing or removing an item costs one term,
 * whatever the size of the state, and the sum does not depend on the order in which items came. They detect that replicas differ;
 * they are no defence against somebody who chooses ids.
 *
 * Two terms: a mix of four words for items of any kind, and the cheaper digest term of a visible order, which market-data clients
 * compute as well (docs/PROTOCOL.md, BookDigest). */
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

/* gcc makes a detour over the stack of 128-bit sums in memory. */
static inline void state_hash_add(state_hash_t *hash, uint128_t term)
{
#if defined(__x86_64__)
    __asm__("addq %2, %0\n\tadcq %3, %1"
            : "+m"(hash->low), "+m"(hash->high)
            : "r"((uint64_t)term), "r"((uint64_t)(term >> 64))
            : "cc");
#else
    uint128_t sum = (((uint128_t)hash->high << 64) | hash->low) + term;
    hash->low = (uint64_t)sum;
    hash->high = (uint64_t)(sum >> 64);
#endif
}

static inline void state_hash_remove(state_hash_t *hash, uint128_t term)
{
#if defined(__x86_64__)
    __asm__("subq %2, %0\n\tsbbq %3, %1"
            : "+m"(hash->low), "+m"(hash->high)
            : "r"((uint64_t)term), "r"((uint64_t)(term >> 64))
            : "cc");
#else
    state_hash_add(hash, -term);
#endif
}

/* The digest term of a visible order is key(id, rank) x (quantity + offset), with rank = price of an ask, ~price of a bid
 * (levels.h). It is linear in the quantity, so a fill changes the digest by one product. The digits of golden ratio and primes
 * as in wyhash; the offset leaves room: quantity < 2^62 does not wrap. */
#define DIGEST_ID_FACTOR UINT64_C(0x9e3779b97f4a7c15)
#define DIGEST_RANK_FACTOR UINT64_C(0xd6e8feb86659fd93)
#define DIGEST_OFFSET UINT64_C(0xa0761d6478bd642f)

static inline uint64_t digest_key(uint64_t order_id, int64_t rank)
{
    return order_id * DIGEST_ID_FACTOR ^ (uint64_t)rank * DIGEST_RANK_FACTOR;
}

static inline uint128_t digest_term(uint64_t key, int64_t quantity)
{
    return (uint128_t)key * ((uint64_t)quantity + DIGEST_OFFSET);
}

/* What the digest loses when an order's quantity shrinks by `less`, and something is left. */
static inline uint128_t digest_reduction(uint64_t key, int64_t less)
{
    return (uint128_t)key * (uint64_t)less;
}

#endif
