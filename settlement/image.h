/* The derivation's state between two blocks as bytes: what a start goes on from instead of the log's first record.
 *
 * An image is of one build's layout, and no other takes it: it can be made again from the log. Whoever keeps it keeps a checksum
 * with it; what is checked here is that nothing in it leads out of bounds. */
#ifndef BULLRING_SETTLEMENT_IMAGE_H
#define BULLRING_SETTLEMENT_IMAGE_H

#include <stdint.h>

#include "derive.h"

/* Bytes of the image of the state as it is now. The block's rows are no part of it: take or drop them first. */
int64_t ledger_image_size(const ledger_t *ledger);

void ledger_write_image(const ledger_t *ledger, char *image);

/* The derivation the image is of, which goes on at its position; NULL when it is of another layout or memory is short. */
ledger_t *ledger_from_image(const char *image, int64_t size);

#endif
