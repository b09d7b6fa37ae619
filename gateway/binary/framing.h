/* Order-entry frames on a byte stream (PROTOCOL section 4).
 *
 * A frame is a 32-byte header (frame_header_t) and a block: message_length = 32 + block_length, 40..256 bytes, a
 * multiple of 8. Three verdicts:
 *   well-formed              length, encoding, schema, version, block length and flags are right: framing_next() > 0
 *   malformed                anything of that is wrong: the connection ends with Terminate(DecodingError)
 *   well-formed, but refused unknown template, short block, bad enum value or padding: a reject code, and the stream goes on
 * Whatever of a header has arrived is judged at once, so a giant length costs four bytes and no waiting. */
#ifndef BULLRING_FRAMING_H
#define BULLRING_FRAMING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "orders.h"

#define FRAME_LENGTH_MIN 40u
#define FRAME_LENGTH_MAX 256u
#define FRAME_ALIGNMENT 8u
#define FRAME_FLAG_CLIENT (FRAME_FLAG_POSS_RESEND | FRAME_FLAG_LAST_IN_BATCH | FRAME_FLAG_MORE)
#define FRAME_SIGNED_FROM 6u /* the signature of a logon covers the bytes from here up to itself */

enum framing_status { FRAMING_PARTIAL = 0, FRAMING_MALFORMED = -1 };

enum frame_kind {
    FRAME_SESSION,  /* Negotiate, Establish, Terminate, Sequence, RetransmitRequest */
    FRAME_REQUEST,  /* numbered, logged */
    FRAME_ADMIN,    /* numbered, logged, privileged sessions only */
    FRAME_QUERY,    /* unnumbered, not logged */
    FRAME_INTERNAL, /* a template of ours that no client may send */
    FRAME_UNKNOWN,
};

typedef struct frame {
    frame_header_t header;
    const uint8_t *block; /* in the caller's buffer, at any alignment */
} frame_t;

/* Look at the frame at the start of `bytes`. Returns its length, FRAMING_PARTIAL or FRAMING_MALFORMED. */
int framing_next(const uint8_t *bytes, size_t available, frame_t *frame);

enum frame_kind framing_kind(uint16_t template_id);

/* Judge a request, administration command or query. `block` is the 8-aligned copy of frame->block. Returns a RejectCode. */
uint16_t framing_check(const frame_t *frame, const void *block);

/* Judge a session message; false = malformed. `block` is an 8-aligned copy. */
bool framing_check_session(const frame_t *frame, const void *block);

/* Offset of the block's accountId if the template is a query that has one, else -1. */
int framing_query_account_offset(uint16_t template_id);

#endif
