#include "sha256.h"

#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

#define ROUNDS 64

const uint32_t sha256_initial[SHA256_WORDS] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                               0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

_Alignas(16) static const uint32_t round_key[ROUNDS] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static inline uint32_t rotate(uint32_t value, int count)
{
    return value >> count | value << (32 - count);
}

static void block_software(uint32_t state[SHA256_WORDS], const uint8_t *data)
{
    uint32_t w[ROUNDS];
    uint32_t v[SHA256_WORDS];

    for (int i = 0; i < 16; i++) {
        memcpy(&w[i], data + 4 * i, 4);
        w[i] = __builtin_bswap32(w[i]);
    }
    for (int i = 16; i < ROUNDS; i++) {
        uint32_t low = rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ w[i - 15] >> 3;
        uint32_t high = rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ w[i - 2] >> 10;
        w[i] = w[i - 16] + low + w[i - 7] + high;
    }
    memcpy(v, state, sizeof v);
    for (int i = 0; i < ROUNDS; i++) {
        uint32_t sum1 = rotate(v[4], 6) ^ rotate(v[4], 11) ^ rotate(v[4], 25);
        uint32_t first = v[7] + sum1 + ((v[4] & v[5]) ^ (~v[4] & v[6])) + round_key[i] + w[i];
        uint32_t sum0 = rotate(v[0], 2) ^ rotate(v[0], 13) ^ rotate(v[0], 22);
        uint32_t second = sum0 + ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
        memmove(v + 1, v, 7 * sizeof v[0]);
        v[4] += first;
        v[0] = first + second;
    }
    for (int i = 0; i < SHA256_WORDS; i++)
        state[i] += v[i];
}

void sha256_blocks_software(uint32_t state[SHA256_WORDS], const void *data, size_t block_count)
{
    for (size_t i = 0; i < block_count; i++)
        block_software(state, (const uint8_t *)data + i * SHA256_BLOCK);
}

#if defined(__x86_64__)

/* The instructions keep the state as ABEF and CDGH, and do two rounds each. */
__attribute__((target("sha,sse4.1,ssse3"))) static void blocks_hardware(uint32_t state[SHA256_WORDS], const uint8_t *data,
                                                                         size_t block_count)
{
    const __m128i big_endian = _mm_set_epi64x(0x0c0d0e0f08090a0bLL, 0x0405060700010203LL);
    __m128i swapped = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)(const void *)state), 0xb1);
    __m128i upper = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)(const void *)(state + 4)), 0x1b);
    __m128i abef = _mm_alignr_epi8(swapped, upper, 8);
    __m128i cdgh = _mm_blend_epi16(upper, swapped, 0xf0);

    for (; block_count > 0; block_count--, data += SHA256_BLOCK) {
        __m128i before_abef = abef;
        __m128i before_cdgh = cdgh;
        __m128i w[4];

        for (int i = 0; i < 4; i++)
            w[i] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(const void *)(data + 16 * i)), big_endian);
#pragma GCC unroll 16 /* only so do the words stay in registers */
        for (int i = 0; i < ROUNDS / 4; i++) {
            __m128i *now = &w[i & 3];
            __m128i keyed = _mm_add_epi32(*now, _mm_load_si128((const __m128i *)(const void *)(round_key + 4 * i)));
            cdgh = _mm_sha256rnds2_epu32(cdgh, abef, keyed);
            abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(keyed, 0x0e));
            /* The words of four rounds later take this one's place. */
            __m128i next = _mm_sha256msg1_epu32(*now, w[(i + 1) & 3]);
            next = _mm_add_epi32(next, _mm_alignr_epi8(w[(i + 3) & 3], w[(i + 2) & 3], 4));
            *now = _mm_sha256msg2_epu32(next, w[(i + 3) & 3]);
        }
        abef = _mm_add_epi32(abef, before_abef);
        cdgh = _mm_add_epi32(cdgh, before_cdgh);
    }
    __m128i feba = _mm_shuffle_epi32(abef, 0x1b);
    __m128i dchg = _mm_shuffle_epi32(cdgh, 0xb1);
    _mm_storeu_si128((__m128i *)(void *)state, _mm_blend_epi16(feba, dchg, 0xf0));
    _mm_storeu_si128((__m128i *)(void *)(state + 4), _mm_alignr_epi8(dchg, feba, 8));
}

/* Asked once: in a virtual machine the question takes tens of microseconds. */
static int has_instructions;

__attribute__((constructor)) static void ask_processor(void)
{
    unsigned a, b, c, d;
    has_instructions = __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (b & bit_SHA) != 0;
}

void sha256_blocks(uint32_t state[SHA256_WORDS], const void *data, size_t block_count)
{
    if (has_instructions)
        blocks_hardware(state, data, block_count);
    else
        sha256_blocks_software(state, data, block_count);
}

#else

void sha256_blocks(uint32_t state[SHA256_WORDS], const void *data, size_t block_count)
{
    sha256_blocks_software(state, data, block_count);
}

#endif

void sha256_digest(const uint32_t state[SHA256_WORDS], uint64_t block_count, uint8_t digest[SHA256_DIGEST])
{
    uint8_t last[SHA256_BLOCK] = {0x80};
    uint32_t end[SHA256_WORDS];
    uint64_t bits = __builtin_bswap64(block_count * SHA256_BLOCK * 8);

    memcpy(last + SHA256_BLOCK - sizeof bits, &bits, sizeof bits);
    memcpy(end, state, sizeof end);
    sha256_blocks(end, last, 1);
    for (int i = 0; i < SHA256_WORDS; i++) {
        uint32_t word = __builtin_bswap32(end[i]);
        memcpy(digest + 4 * i, &word, sizeof word);
    }
}
