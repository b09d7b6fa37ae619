/* Trades as WebSocket frames: what payloads.trade() and ws_frame() make of them, without a step of Python a trade. */
#ifndef BULLRING_TRADES_H
#define BULLRING_TRADES_H

#include <stdint.h>

#define TRADES_SLOT 64        /* a slot of a derived channel */
#define TRADES_FRAME_MAX 512  /* of a trade, with a head of at most TRADES_HEAD_MAX */
#define TRADES_HEAD_MAX 256
#define TRADES_PLACES_MAX 18

/* How one pair's trades are written. A number of `ticks` is ticks * price_times / 10^price_places. */
typedef struct trades_form {
    const char *head; /* everything before the trade id */
    uint32_t head_size;
    uint32_t wrapped; /* one more closing bracket */
    uint64_t price_times, qty_times;
    uint32_t price_places, qty_places;
    uint64_t unit_ns;
} trades_form_t;

/* Write a frame for each of `count` slots with a Trade into `out`, which has count * TRADES_FRAME_MAX bytes; return the size. */
uint64_t trades_frames(const void *slots, uint32_t count, const trades_form_t *form, uint8_t *out);

#endif
