/* Whose report it is: the account in the block, by template. What is counted per account is exactly what has one here. */
#ifndef BULLRING_REPORT_ACCOUNT_H
#define BULLRING_REPORT_ACCOUNT_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "orders.h"
#include "slots.h"

/* 0 = of no account. */
static inline uint32_t report_account(const report_slot_t *slot)
{
    size_t offset;
    uint32_t account;

    switch (slot->template_id) {
    case TEMPLATE_ORDER_ACCEPTED:
        offset = offsetof(order_accepted_t, account_id);
        break;
    case TEMPLATE_ORDER_REJECTED:
        offset = offsetof(order_rejected_t, account_id);
        break;
    case TEMPLATE_ORDER_EXECUTED:
        offset = offsetof(order_executed_t, account_id);
        break;
    case TEMPLATE_ORDER_CANCELED:
        offset = offsetof(order_canceled_t, account_id);
        break;
    case TEMPLATE_ORDER_REPLACED:
        offset = offsetof(order_replaced_t, account_id);
        break;
    case TEMPLATE_CANCEL_REPLACE_REJECT:
        offset = offsetof(cancel_replace_reject_t, account_id);
        break;
    case TEMPLATE_MASS_CANCEL_REPORT:
        offset = offsetof(mass_cancel_report_t, account_id);
        break;
    case TEMPLATE_ORDER_TRIGGERED:
        offset = offsetof(order_triggered_t, account_id);
        break;
    case TEMPLATE_QUOTE_ACK:
        offset = offsetof(quote_ack_t, account_id);
        break;
    case TEMPLATE_ORDER_PREVENTED:
        offset = offsetof(order_prevented_t, account_id);
        break;
    case TEMPLATE_LIST_STATUS:
        offset = offsetof(list_status_t, account_id);
        break;
    case TEMPLATE_ORDER_STATUS:
        offset = offsetof(order_status_t, account_id);
        break;
    default:
        return 0;
    }
    memcpy(&account, slot->block + offset, sizeof(account));
    return account;
}

#endif
