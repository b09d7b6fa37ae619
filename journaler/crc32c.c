#include "crc32c.h"

#include <string.h>

#if defined(__SSE4_2__)
#include <nmmintrin.h>
#define CRC_HARDWARE 1
#define CRC_WORD(crc, word) _mm_crc32_u64((crc), (word))
#define CRC_BYTE(crc, byte) _mm_crc32_u8((uint32_t)(crc), (byte))
#elif defined(__ARM_FEATURE_CRC32)
#include <arm_acle.h>
#define CRC_HARDWARE 1
#define CRC_WORD(crc, word) __crc32cd((uint32_t)(crc), (word))
#define CRC_BYTE(crc, byte) __crc32cb((uint32_t)(crc), (byte))
#endif

#define CRC_POLYNOMIAL UINT32_C(0x82f63b78)
#define CRC_TABLES 8

static uint32_t crc_table[CRC_TABLES][256];

#ifdef CRC_HARDWARE
/* The instruction takes 3 cycles and starts one a cycle: three lanes keep it busy. Long lanes for whole batches, short ones
 * for a few slots. */
#define LANE_LONG 2048
#define LANE_SHORT 256
static uint32_t shift_long[4][256];
static uint32_t shift_short[4][256];

/* Appending `size` zero bytes is linear in the crc: the table of each of its four bytes gives the whole map. */
static void shift_fill(uint32_t table[4][256], size_t size)
{
    for (int byte = 0; byte < 4; byte++)
        for (uint32_t value = 0; value < 256; value++) {
            uint32_t crc = value << (8 * byte);
            for (size_t i = 0; i < size; i++)
                crc = crc_table[0][crc & 255] ^ (crc >> 8);
            table[byte][value] = crc;
        }
}

static inline uint32_t shift(const uint32_t table[4][256], uint32_t crc)
{
    return table[0][crc & 255] ^ table[1][(crc >> 8) & 255] ^ table[2][(crc >> 16) & 255] ^ table[3][crc >> 24];
}
#endif

/* Before main(), so that no lock and no "is it ready" stands in the way of a batch. */
__attribute__((constructor)) static void crc_prepare(void)
{
    for (uint32_t value = 0; value < 256; value++) {
        uint32_t crc = value;
        for (int bit = 0; bit < 8; bit++)
            crc = (crc >> 1) ^ ((crc & 1) ? CRC_POLYNOMIAL : 0);
        crc_table[0][value] = crc;
    }
    for (uint32_t value = 0; value < 256; value++)
        for (int k = 1; k < CRC_TABLES; k++)
            crc_table[k][value] = crc_table[0][crc_table[k - 1][value] & 255] ^ (crc_table[k - 1][value] >> 8);
#ifdef CRC_HARDWARE
    shift_fill(shift_long, LANE_LONG);
    shift_fill(shift_short, LANE_SHORT);
#endif
}

static inline uint64_t load_word(const uint8_t *bytes)
{
    uint64_t word;
    memcpy(&word, bytes, sizeof word);
    return word;
}

uint32_t crc32c_software(const void *data, size_t size, uint32_t seed)
{
    const uint8_t *bytes = data;
    uint32_t crc = ~seed;

    for (; size >= 8; size -= 8, bytes += 8) {
        uint64_t word = load_word(bytes) ^ crc;
        crc = 0;
        for (int k = 0; k < CRC_TABLES; k++)
            crc ^= crc_table[CRC_TABLES - 1 - k][(word >> (8 * k)) & 255];
    }
    for (; size > 0; size--, bytes++)
        crc = crc_table[0][(crc ^ *bytes) & 255] ^ (crc >> 8);
    return ~crc;
}

#ifdef CRC_HARDWARE
static inline uint32_t crc_three_lanes(const uint8_t *bytes, size_t lane, const uint32_t table[4][256], uint32_t seed)
{
    uint64_t a = seed;
    uint64_t b = 0;
    uint64_t c = 0;

    for (size_t i = 0; i < lane; i += 8) {
        a = CRC_WORD(a, load_word(bytes + i));
        b = CRC_WORD(b, load_word(bytes + lane + i));
        c = CRC_WORD(c, load_word(bytes + 2 * lane + i));
    }
    uint32_t joined = shift(table, (uint32_t)a) ^ (uint32_t)b;
    return shift(table, joined) ^ (uint32_t)c;
}

uint32_t crc32c(const void *data, size_t size, uint32_t seed)
{
    const uint8_t *bytes = data;
    uint32_t crc = ~seed;

    for (; size >= 3 * LANE_LONG; size -= 3 * LANE_LONG, bytes += 3 * LANE_LONG)
        crc = crc_three_lanes(bytes, LANE_LONG, shift_long, crc);
    for (; size >= 3 * LANE_SHORT; size -= 3 * LANE_SHORT, bytes += 3 * LANE_SHORT)
        crc = crc_three_lanes(bytes, LANE_SHORT, shift_short, crc);
    for (; size >= 8; size -= 8, bytes += 8)
        crc = (uint32_t)CRC_WORD(crc, load_word(bytes));
    for (; size > 0; size--, bytes++)
        crc = CRC_BYTE(crc, *bytes);
    return ~crc;
}
#else
uint32_t crc32c(const void *data, size_t size, uint32_t seed)
{
    return crc32c_software(data, size, seed);
}
#endif
