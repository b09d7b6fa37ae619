"""Clients of the binary protocol: an asyncio one for trading, a blocking one for administration.

They know the protocol and nothing of the server: of ours they import the wire schema alone.
"""

from gateway.clients.python.admin import AdminClient, AdminError, AdminRefused
from gateway.clients.python.client import BullringClient, LogonRefused, Report, ReportGap, SessionLost
from gateway.clients.python.orders import Order
from gateway.clients.python.signing import Ed25519Signer, HmacSigner, Signer, load_signer

__all__ = [
    "AdminClient",
    "AdminError",
    "AdminRefused",
    "BullringClient",
    "Ed25519Signer",
    "HmacSigner",
    "LogonRefused",
    "Order",
    "Report",
    "ReportGap",
    "SessionLost",
    "Signer",
    "load_signer",
]
