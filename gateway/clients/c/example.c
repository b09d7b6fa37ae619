/* Place one limit order, print what comes back for two seconds, cancel it.
 *
 *     cc -I gateway/clients/c -I ringbuf/include gateway/clients/c/example.c -o example
 *     ./example 127.0.0.1 9100 SESSION KEY-ID SECRET-HEX INSTRUMENT PRICE-TICKS QUANTITY-LOTS */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "bullring_client.h"

static uint64_t order_id;

static void on_frame(void *context, const frame_header_t *header, const void *block)
{
    (void)context;
    printf("partition %u number %" PRIu64 " template %u\n", header->flags >> FRAME_FLAG_PARTITION_SHIFT, header->seq_num,
           header->template_id);
    if (header->template_id == TEMPLATE_ORDER_ACCEPTED)
        order_id = ((const order_accepted_t *)block)->order_id;
    else if (header->template_id == TEMPLATE_ORDER_REJECTED)
        printf("rejected: code %u\n", ((const order_rejected_t *)block)->reject_code);
}

static int read_for(bullring_client_t *client, uint64_t ns)
{
    uint64_t end = bullring_clock(CLOCK_MONOTONIC) + ns;
    int status = BULLRING_OK;

    while (status >= 0 && bullring_clock(CLOCK_MONOTONIC) < end) {
        status = bullring_flush(client);
        if (status >= 0)
            status = bullring_poll(client);
        if (status >= 0 && bullring_keep_alive(client) < 0)
            status = BULLRING_TIMEOUT;
    }
    return status;
}

int main(int count, char **arguments)
{
    static bullring_client_t client;
    uint8_t secret[32];

    if (count != 9) {
        fprintf(stderr, "usage: %s ADDRESS PORT SESSION KEY-ID SECRET-HEX INSTRUMENT PRICE QUANTITY\n", arguments[0]);
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
    new_order_single_t order =
        bullring_limit_order((uint32_t)atoi(arguments[6]), SIDE_BUY, atoll(arguments[7]), atoll(arguments[8]));
    bullring_send_new(&client, &order);
    status = read_for(&client, UINT64_C(2000000000));
    if (status >= 0 && order_id != 0) {
        order_cancel_request_t cancel = {
            .orig_cl_ord_id = ORDER_ID_OPT_NULL, .order_id = order_id, .instrument_id = order.instrument_id};
        bullring_send_cancel(&client, &cancel);
        status = read_for(&client, UINT64_C(500000000));
    }
    bullring_disconnect(&client);
    return status < 0;
}
