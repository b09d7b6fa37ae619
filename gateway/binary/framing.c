#include "framing.h"

#include <string.h>

#include "slots.h"

static bool flags_allowed(const frame_header_t *header)
{
    uint16_t allowed = FRAME_FLAG_CLIENT;
    if (header->template_id == TEMPLATE_RETRANSMIT_REQUEST)
        allowed |= FRAME_FLAG_PARTITION_MASK;
    return (header->flags & ~allowed) == 0;
}

static bool length_allowed(uint32_t length)
{
    return length >= FRAME_LENGTH_MIN && length <= FRAME_LENGTH_MAX && length % FRAME_ALIGNMENT == 0;
}

static bool block_length_allowed(const frame_header_t *header)
{
    if ((uint32_t)header->block_length + FRAME_HEADER_SIZE != header->message_length)
        return false;
    /* Too short is refused with a report; too long in a version we know cannot be meant. */
    uint16_t known = orders_block_length(header->template_id);
    return known == 0 || header->block_length <= known;
}

/* The Negotiate of a newer client is well-formed: it gets NegotiateReject(UnsupportedVersion), which says more. */
static bool version_allowed(const frame_header_t *header)
{
    return header->version <= ORDERS_SCHEMA_VERSION || header->template_id == TEMPLATE_NEGOTIATE;
}

int framing_next(const uint8_t *bytes, size_t available, frame_t *frame)
{
    frame_header_t header = {0};
    size_t have = available < FRAME_HEADER_SIZE ? available : FRAME_HEADER_SIZE;

    if (have == FRAME_HEADER_SIZE)
        memcpy(&header, bytes, FRAME_HEADER_SIZE); /* the size known: two instructions */
    else
        memcpy(&header, bytes, have);
    if (have >= 4 && !length_allowed(header.message_length))
        return FRAMING_MALFORMED;
    if (have >= 6 && header.encoding_type != SOFH_ENCODING_TYPE)
        return FRAMING_MALFORMED;
    if (have >= 12 && header.schema_id != ORDERS_SCHEMA_ID)
        return FRAMING_MALFORMED;
    if (have < FRAME_HEADER_SIZE)
        return FRAMING_PARTIAL;
    if (!version_allowed(&header) || !block_length_allowed(&header) || !flags_allowed(&header))
        return FRAMING_MALFORMED;
    if (available < header.message_length)
        return FRAMING_PARTIAL;
    frame->header = header;
    frame->block = bytes + FRAME_HEADER_SIZE;
    return (int)header.message_length;
}

enum frame_kind framing_kind(uint16_t template_id)
{
    if (orders_block_length(template_id) == 0)
        return FRAME_UNKNOWN;
    switch (template_id) {
    case TEMPLATE_NEGOTIATE:
    case TEMPLATE_ESTABLISH:
    case TEMPLATE_TERMINATE:
    case TEMPLATE_SEQUENCE:
    case TEMPLATE_RETRANSMIT_REQUEST:
        return FRAME_SESSION;
    default:
        break;
    }
    if (template_id >= 100 && template_id < 200)
        return FRAME_REQUEST;
    if ((template_id >= TEMPLATE_ASSET_ADD && template_id < 400) || template_id == TEMPLATE_QUARANTINE)
        return FRAME_ADMIN;
    if (template_id >= 400 && template_id < 500)
        return FRAME_QUERY;
    return FRAME_INTERNAL;
}

uint16_t framing_check(const frame_t *frame, const void *block)
{
    uint16_t known = orders_block_length(frame->header.template_id);
    enum frame_kind kind = framing_kind(frame->header.template_id);

    if (kind == FRAME_UNKNOWN || kind == FRAME_INTERNAL || kind == FRAME_SESSION)
        return REJECT_CODE_UNKNOWN_TEMPLATE;
    if (frame->header.block_length < known)
        return REJECT_CODE_BLOCK_TOO_SHORT;
    return orders_validate(frame->header.template_id, block);
}

bool framing_check_session(const frame_t *frame, const void *block)
{
    if (frame->header.block_length < orders_block_length(frame->header.template_id) || frame->header.seq_num != 0)
        return false;
    switch (frame->header.template_id) {
    case TEMPLATE_NEGOTIATE: {
        const negotiate_t *negotiate = block;
        return wire_is_credential_type(negotiate->credential_type) && negotiate->pad1 == 0 && negotiate->pad2 == 0;
    }
    case TEMPLATE_ESTABLISH: {
        const establish_t *establish = block;
        return wire_is_credential_type(establish->credential_type) && wire_is_cod_type(establish->cod_type) &&
               establish->pad1 == 0;
    }
    case TEMPLATE_TERMINATE: {
        const terminate_t *terminate = block;
        return wire_is_terminate_code(terminate->code) && terminate->pad1 == 0 && terminate->pad2 == 0;
    }
    case TEMPLATE_SEQUENCE:
    case TEMPLATE_RETRANSMIT_REQUEST:
        return true;
    default:
        return false;
    }
}

int framing_query_account_offset(uint16_t template_id)
{
    switch (template_id) {
    case TEMPLATE_BALANCE_QUERY:
        return offsetof(balance_query_t, account_id);
    case TEMPLATE_OPEN_ORDERS_QUERY:
        return offsetof(open_orders_query_t, account_id);
    case TEMPLATE_ORDER_QUERY:
        return offsetof(order_query_t, account_id);
    case TEMPLATE_ACCOUNT_QUERY:
        return offsetof(account_query_t, account_id);
    case TEMPLATE_SESSION_QUERY:
        return offsetof(session_query_t, account_id);
    default:
        return -1;
    }
}
