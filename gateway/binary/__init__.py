"""Binary order entry over TCP and the admin gateway: the server in C, its configuration and logon checks in Python."""

from gateway.binary.server import BinaryServer, ServerConfig

__all__ = ["BinaryServer", "ServerConfig"]
