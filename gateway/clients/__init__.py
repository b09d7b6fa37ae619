"""Clients: asyncio ones for trading and for market data, a blocking one for administration.

They know the protocol and nothing of the server: of ours they import the wire schema alone.
"""

from gateway.clients.python.admin import AdminClient, AdminError, AdminRefused
from gateway.clients.python.books import BookMismatch, BookOrder, Level, OrderBook
from gateway.clients.python.client import BullringClient, LogonRefused, Report, ReportGap, SessionLost
from gateway.clients.python.market import Line, MarketFeed, Servers, load_definitions
from gateway.clients.python.orders import Order
from gateway.clients.python.signing import Ed25519Signer, HmacSigner, Signer, load_signer
from gateway.clients.python.soup import SoupClosed, SoupConnection, SoupRefused

__all__ = [
    "AdminClient",
    "AdminError",
    "AdminRefused",
    "BookMismatch",
    "BookOrder",
    "BullringClient",
    "Ed25519Signer",
    "HmacSigner",
    "Level",
    "Line",
    "LogonRefused",
    "MarketFeed",
    "Order",
    "OrderBook",
    "Report",
    "ReportGap",
    "Servers",
    "SessionLost",
    "Signer",
    "SoupClosed",
    "SoupConnection",
    "SoupRefused",
    "load_definitions",
    "load_signer",
]
