"""Where the operator's page has its facts from: `bullring stat`, and the ledger's process."""

from __future__ import annotations

from typing import Any

from gateway.web.operator import Sources
from scripts.config import Config
from scripts.exit_codes import CommandError
from scripts.node import Node
from scripts.stat import observe
from settlement.service import ServiceClient, ServiceError

OBSERVED_S = 0.3


def operator_sources(config: Config) -> Sources:
    """Return what the page of a node asks; the functions raise OSError."""

    def exchange() -> dict[str, Any]:
        try:
            return observe(Node.load(config.run_dir), OBSERVED_S)
        except CommandError as error:
            raise OSError(str(error)) from error

    def books() -> dict[str, Any]:
        client = ServiceClient(config.ledger_socket)
        try:
            return dict(next(client.call("overview")))
        except ServiceError as error:
            raise OSError(str(error)) from error
        finally:
            client.close()

    return Sources(exchange, books if config.ledger.enabled else None)
