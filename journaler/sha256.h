/* SHA-256 (FIPS 180-4) of whole blocks, with the chaining value in the caller's hands: the audit chain stops and goes on at any
 * record, also in another process. A log slot is two blocks. For everything else Python's hashlib is there. */
#ifndef BULLRING_SHA256_H
#define BULLRING_SHA256_H

#include <stddef.h>
#include <stdint.h>

#define SHA256_BLOCK 64
#define SHA256_WORDS 8
#define SHA256_DIGEST 32

extern const uint32_t sha256_initial[SHA256_WORDS];

void sha256_blocks(uint32_t state[SHA256_WORDS], const void *data, size_t block_count);

/* The version without the processor's SHA instructions, always built: what other machines use, and the reference of the other. */
void sha256_blocks_software(uint32_t state[SHA256_WORDS], const void *data, size_t block_count);

/* The digest of the `block_count` blocks that made `state`. */
void sha256_digest(const uint32_t state[SHA256_WORDS], uint64_t block_count, uint8_t digest[SHA256_DIGEST]);

#endif
