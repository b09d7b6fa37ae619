/* Commands of several linked messages: move an order by cancelling it and placing another at once; place an order list (OCO: a
 * profit taken above, or a loss stopped below); then cancel whatever is left. Prints one line a report.
 *
 *     cc -I gateway/clients/c -I ringbuf/include gateway/clients/c/list_example.c -o list_example
 *     ./list_example 127.0.0.1 9100 SESSION KEY-ID SECRET-HEX INSTRUMENT LOW-TICKS HIGH-TICKS QUANTITY-LOTS
 *
 * Buys at LOW, then at LOW + 1; sells at HIGH, or at any price once a trade is at LOW or below. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "bullring_client.h"

#define ANSWER_NS UINT64_C(5000000000)

static struct {
    uint64_t order_id;   /* of the newest order accepted */
    int accepted, canceled, refused, mass_canceled;
} seen;

static void on_frame(void *context, const frame_header_t *header, const void *block)
{
    (void)context;
    switch (header->template_id) {
    case TEMPLATE_ORDER_ACCEPTED: {
        const order_accepted_t *report = block;
        seen.order_id = report->order_id;
        seen.accepted++;
        printf("accepted: order %" PRIu64 ", status %u\n", report->order_id, report->ord_status);
        break;
    }
    case TEMPLATE_ORDER_CANCELED: {
        const order_canceled_t *report = block;
        seen.canceled++;
        printf("canceled: order %" PRIu64 ", reason %u\n", report->order_id, report->cancel_reason);
        break;
    }
    case TEMPLATE_ORDER_EXECUTED: {
        const order_executed_t *report = block;
        printf("executed: order %" PRIu64 ", %" PRId64 " lots at %" PRId64 "\n", report->order_id, report->last_qty,
               report->last_px);
        break;
    }
    case TEMPLATE_LIST_STATUS: {
        const list_status_t *report = block;
        seen.refused += report->order_status == LIST_ORDER_STATUS_REJECT;
        printf("list %" PRIu64 ": status %u, code %u\n", report->list_cl_ord_id, report->status_type, report->reject_code);
        break;
    }
    case TEMPLATE_ORDER_REJECTED: {
        const order_rejected_t *report = block;
        seen.refused++;
        printf("rejected: request %" PRIu64 ", code %u\n", report->ref_seq_num, report->reject_code);
        break;
    }
    case TEMPLATE_MASS_CANCEL_REPORT: {
        const mass_cancel_report_t *report = block;
        seen.mass_canceled++;
        printf("mass cancel: %u orders of matcher %u\n", report->total_affected,
               header->flags >> FRAME_FLAG_PARTITION_SHIFT);
        break;
    }
    default:
        break;
    }
}

/* Read until `*counter` has reached `wanted`; false when something was refused, lost or did not come. */
static bool await(bullring_client_t *client, const int *counter, int wanted)
{
    uint64_t end = bullring_clock(CLOCK_MONOTONIC) + ANSWER_NS;

    while (*counter < wanted && seen.refused == 0) {
        if (bullring_flush(client) < 0 || bullring_poll(client) < 0 || bullring_keep_alive(client) < 0)
            return false;
        if (bullring_clock(CLOCK_MONOTONIC) > end)
            return false;
    }
    return seen.refused == 0;
}

static bool trade(bullring_client_t *client, uint32_t instrument, int64_t low, int64_t high, int64_t quantity)
{
    new_order_single_t order = bullring_limit_order(instrument, SIDE_BUY, low, quantity);
    bullring_send_new(client, &order);
    if (!await(client, &seen.accepted, 1))
        return false;

    order_cancel_request_t cancel = {
        .orig_cl_ord_id = ORDER_ID_OPT_NULL, .order_id = seen.order_id, .instrument_id = instrument};
    order.price = low + 1;
    bullring_send_cancel_replace(client, &cancel, &order);
    if (!await(client, &seen.canceled, 1) || !await(client, &seen.accepted, 2))
        return false;

    new_order_single_t legs[2] = {bullring_limit_order(instrument, SIDE_SELL, high, quantity),
                                  bullring_limit_order(instrument, SIDE_SELL, PX_OPT_NULL, quantity)};
    legs[0].exec_inst = EXEC_INST_POST_ONLY;
    legs[1].ord_type = ORD_TYPE_STOP;
    legs[1].stop_px = low;
    bullring_send_list(client, LIST_TYPE_OCO, 42, legs, 2);
    if (!await(client, &seen.accepted, 4))
        return false;

    mass_cancel_request_t all = {.scope = MASS_CANCEL_SCOPE_SESSION};
    bullring_send_mass_cancel(client, &all);
    return await(client, &seen.canceled, 4) && await(client, &seen.mass_canceled, 1);
}

int main(int count, char **arguments)
{
    static bullring_client_t client;
    uint8_t secret[32];

    if (count != 10) {
        fprintf(stderr, "usage: %s ADDRESS PORT SESSION KEY-ID SECRET-HEX INSTRUMENT LOW HIGH QUANTITY\n", arguments[0]);
        return 64;
    }
    for (int i = 0; i < 32; i++)
        if (sscanf(arguments[5] + 2 * i, "%2hhx", &secret[i]) != 1)
            return 64;
    bullring_init(&client, (uint32_t)atoi(arguments[3]), on_frame, NULL);
    bullring_key_hmac(&client, arguments[4], secret);
    int status = bullring_connect(&client, arguments[1], (uint16_t)atoi(arguments[2]));
    if (status == BULLRING_OK)
        status = bullring_log_on(&client, bullring_clock(CLOCK_REALTIME), 1000, 5000);
    if (status != BULLRING_OK) {
        fprintf(stderr, "no logon: status %d, reject code %u\n", status, client.reject_code);
        return 1;
    }
    bool done = trade(&client, (uint32_t)atoi(arguments[6]), atoll(arguments[7]), atoll(arguments[8]), atoll(arguments[9]));
    bullring_disconnect(&client);
    return done ? 0 : 1;
}
