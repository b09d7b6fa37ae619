"""Every endpoint there is; REST routes, WebSocket methods and the OpenAPI document come from this list."""

from gateway.web import (
    account,
    batches,
    cancels,
    changes,
    dead_man,
    exchange_info,
    general,
    lists,
    order_queries,
    public,
    trading,
    wallet,
)
from gateway.web.api import Endpoint

ENDPOINTS: tuple[Endpoint, ...] = (
    *general.ENDPOINTS,
    *exchange_info.ENDPOINTS,
    *public.ENDPOINTS,
    *trading.ENDPOINTS,
    *cancels.ENDPOINTS,
    *changes.ENDPOINTS,
    *order_queries.ENDPOINTS,
    *batches.ENDPOINTS,
    *lists.ENDPOINTS,
    *dead_man.ENDPOINTS,
    *account.ENDPOINTS,
    *wallet.ENDPOINTS,
)
