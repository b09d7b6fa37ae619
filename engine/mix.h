/* 64 x 64 -> 128 multiply-and-fold, the mixer of wyhash: for table positions. */
#ifndef BULLRING_ENGINE_MIX_H
#define BULLRING_ENGINE_MIX_H

#include <stdint.h>

#include "platform.h"

static inline uint64_t mix64(uint64_t a, uint64_t b)
{
    uint128_t product = (uint128_t)(a ^ UINT64_C(0x9e3779b97f4a7c15)) * (b ^ UINT64_C(0xd6e8feb86659fd93));
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

#endif
