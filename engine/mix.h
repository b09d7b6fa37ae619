/* 64 x 64 -> 128 multiply-and-fold, the mixer of wyhash: for table positions and for the incremental state hash. */
#ifndef BULLRING_ENGINE_MIX_H
#define BULLRING_ENGINE_MIX_H

#include <stdint.h>

#include "platform.h"

static inline uint64_t mix64(uint64_t a, uint64_t b)
{
    uint128_t product = (uint128_t)(a ^ UINT64_C(0x9e3779b97f4a7c15)) * (b ^ UINT64_C(0xd6e8feb86659fd93));
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* 128 bits of four words, as one term of a sum over a set. */
static inline uint128_t mix128(uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
    uint64_t low = mix64(mix64(a, b), mix64(c, d ^ UINT64_C(0xa0761d6478bd642f)));
    uint64_t high = mix64(low ^ c, a ^ UINT64_C(0xe7037ed1a0b428db));
    return (uint128_t)high << 64 | low;
}

#endif
