/* CRC32C (Castagnoli, reflected 0x82F63B78). crc32c(data, size, 0) of "123456789" is 0xE3069283; a seed continues a checksum,
 * so crc32c(b, crc32c(a, 0)) is that of a followed by b. Hardware: three independent lanes, joined by tables. */
#ifndef BULLRING_CRC32C_H
#define BULLRING_CRC32C_H

#include <stddef.h>
#include <stdint.h>

uint32_t crc32c(const void *data, size_t size, uint32_t seed);

/* The table version, always built: what machines without the instruction use, and the reference of the other. */
uint32_t crc32c_software(const void *data, size_t size, uint32_t seed);

#endif
