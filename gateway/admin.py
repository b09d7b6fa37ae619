"""The admin gateway: the order-entry server on a Unix socket only its owner may open, source 1, session 1, no logon."""

from gateway.binary.server import BinaryServer, ServerConfig
from gateway.errors import GatewayConfigError

ADMIN_SOURCE = 1
ADMIN_CONNECTIONS_MAX = 16


def admin_config(*, partitions: int, sessions_max: int) -> ServerConfig:
    """Return the configuration of an admin gateway: few connections, no throttle."""
    return ServerConfig(
        source=ADMIN_SOURCE,
        partitions=partitions,
        sessions_max=sessions_max,
        connections_max=ADMIN_CONNECTIONS_MAX,
    )


def admin_server(config: ServerConfig) -> BinaryServer:
    """Return a server without logon; its numbering of commands continues where session 1 stands in the log."""
    if config.source != ADMIN_SOURCE:
        raise GatewayConfigError(f"source = {config.source}: the admin gateway is source {ADMIN_SOURCE}")
    return BinaryServer(config, admin=True)
