#include "trades.h"

#include <stdbool.h>
#include <string.h>

#include "invariant.h"
#include "marketdata.h"

#define BLOCK_AT 16
#define FRAME_TEXT 0x81
#define LENGTH_16 126u

typedef unsigned __int128 wide_t;

static const uint64_t powers[TRADES_PLACES_MAX + 1] = {
    1, 10, 100, 1000, 10000, 100000, 1000000, 10000000, 100000000, 1000000000, 10000000000, 100000000000, 1000000000000,
    10000000000000, 100000000000000, 1000000000000000, 10000000000000000, 100000000000000000, 1000000000000000000};

static uint8_t *put(uint8_t *at, const char *text, uint32_t size)
{
    memcpy(at, text, size);
    return at + size;
}

/* At least `digits` of them, with zeros in front. */
static uint8_t *put_number(uint8_t *at, wide_t value, uint32_t digits)
{
    uint8_t reversed[40];
    uint32_t count = 0;
    while (value >> 64 != 0) {
        reversed[count++] = (uint8_t)('0' + (uint32_t)(value % 10));
        value /= 10;
    }
    for (uint64_t rest = (uint64_t)value; rest != 0; rest /= 10)
        reversed[count++] = (uint8_t)('0' + rest % 10);
    while (count < digits)
        reversed[count++] = '0';
    while (count > 0)
        *at++ = reversed[--count];
    return at;
}

static uint8_t *put_decimal(uint8_t *at, int64_t units, uint64_t times, uint32_t places)
{
    uint64_t size = units < 0 ? (uint64_t)0 - (uint64_t)units : (uint64_t)units;
    wide_t scaled = (wide_t)size * times;
    if (units < 0)
        *at++ = '-';
    if (scaled >> 64 == 0) {
        at = put_number(at, (uint64_t)scaled / powers[places], 1);
        *at++ = '.';
        return put_number(at, (uint64_t)scaled % powers[places], places);
    }
    at = put_number(at, scaled / powers[places], 1);
    *at++ = '.';
    return put_number(at, scaled % powers[places], places);
}

static uint8_t *put_trade(uint8_t *at, const trade_t *trade, const trades_form_t *form)
{
    bool buyer_rested = trade->aggressor_side == SIDE_OR_BOTH_SELL;
    at = put(at, form->head, form->head_size);
    at = put_number(at, trade->trade_id, 1);
    at = put(at, ",\"p\":\"", 6);
    at = put_decimal(at, trade->price, form->price_times, form->price_places);
    at = put(at, "\",\"q\":\"", 7);
    at = put_decimal(at, trade->qty, form->qty_times, form->qty_places);
    at = put(at, "\",\"T\":", 6);
    at = put_number(at, trade->transact_time / form->unit_ns, 1);
    at = buyer_rested ? put(at, ",\"m\":true", 9) : put(at, ",\"m\":false", 10);
    return put(at, ",\"M\":true}}", form->wrapped ? 11 : 10);
}

uint64_t trades_frames(const void *slots, uint32_t count, const trades_form_t *form, uint8_t *out)
{
    uint8_t *at = out;
    INVARIANT(form->head_size <= TRADES_HEAD_MAX);
    INVARIANT(form->price_places >= 1 && form->price_places <= TRADES_PLACES_MAX);
    INVARIANT(form->qty_places >= 1 && form->qty_places <= TRADES_PLACES_MAX);
    INVARIANT(form->unit_ns > 0);
    for (uint32_t i = 0; i < count; i++) {
        const trade_t *trade = (const trade_t *)((const uint8_t *)slots + (size_t)i * TRADES_SLOT + BLOCK_AT);
        uint8_t text[TRADES_FRAME_MAX];
        uint32_t size = (uint32_t)(put_trade(text, trade, form) - text);
        *at++ = FRAME_TEXT;
        if (size < LENGTH_16) {
            *at++ = (uint8_t)size;
        } else {
            *at++ = LENGTH_16;
            *at++ = (uint8_t)(size >> 8);
            *at++ = (uint8_t)size;
        }
        memcpy(at, text, size);
        at += size;
    }
    return (uint64_t)(at - out);
}
