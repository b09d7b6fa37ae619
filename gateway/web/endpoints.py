"""Every endpoint there is; REST routes, WebSocket methods and the OpenAPI document come from this list."""

from gateway.web import account, dead_man, exchange_info, general, lists, public, trading, wallet
from gateway.web.api import Endpoint

ENDPOINTS: tuple[Endpoint, ...] = (
    *general.ENDPOINTS,
    *exchange_info.ENDPOINTS,
    *public.ENDPOINTS,
    *trading.ENDPOINTS,
    *lists.ENDPOINTS,
    *dead_man.ENDPOINTS,
    *account.ENDPOINTS,
    *wallet.ENDPOINTS,
)
