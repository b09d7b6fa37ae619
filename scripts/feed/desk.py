"""What all `bullring feed` commands share: where the feed is, with what to log in, what the instruments are."""

from __future__ import annotations

import argparse
from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from gateway.clients import Servers, SoupClosed, SoupRefused, load_definitions
from gateway.marketdata.tokens import Entitlement, Token, mint
from ringbuf.wire.market_messages import InstrumentDefinition
from scripts.config import Config, split_address
from scripts.exit_codes import CommandError, ExitCode
from scripts.node import Node

Result = TypeVar("Result")
OPERATOR = 0  # subscriber number of tokens the command makes for itself
FEED_OFF = "the exchange runs without a market feed: gateway.feed.enabled and journal.archive"


@dataclass(frozen=True)
class Desk:
    """Servers and a login."""

    servers: Servers
    user: str
    password: str

    async def definitions(self) -> dict[int, InstrumentDefinition]:
        """Return all instruments by id."""
        return await answered(load_definitions(self.servers, user=self.user, password=self.password), self.servers)

    async def instrument(self, symbol: str) -> InstrumentDefinition:
        """Return one instrument by its symbol. Raises CommandError."""
        known = {each.symbol: each for each in (await self.definitions()).values()}
        if symbol not in known:
            raise CommandError(f"no instrument {symbol}; there are: {', '.join(known) or 'none'}", ExitCode.BAD_INPUT)
        return known[symbol]


def add_login(parser: argparse.ArgumentParser) -> None:
    """Add the options that name another exchange than the one of --data."""
    parser.add_argument("--replay", metavar="HOST:PORT", help="replay server; default: of the exchange of --data")
    parser.add_argument("--snapshot", metavar="HOST:PORT", help="snapshot server; likewise")
    parser.add_argument("--rerequest", metavar="HOST:PORT", help="re-request server; likewise")
    parser.add_argument("--user", help="user name of a token; default: one made with the key of --data")
    parser.add_argument("--password", help="its password")


def desk(options: argparse.Namespace, config: Config) -> Desk:
    """Return where to connect and how. Raises CommandError."""
    if options.replay or options.snapshot:
        if not (options.replay and options.snapshot):
            raise CommandError("--replay and --snapshot go together", ExitCode.USAGE)
        servers = _given(options)
    else:
        servers = local_servers(Node.load(config.run_dir))
    if options.user is not None:
        return Desk(servers, options.user, options.password or "")
    token = operator_token(config)
    return Desk(servers, token.user, token.password)


def _given(options: argparse.Namespace) -> Servers:
    addresses = {}
    for name in ("replay", "snapshot", "rerequest"):
        text = getattr(options, name)
        if text is not None and (":" not in text or not text.rpartition(":")[2].isdigit()):
            raise CommandError(f"--{name} {text}: must be HOST:PORT", ExitCode.USAGE)
        addresses[name] = None if text is None else split_address(text)
    host, replay_port = addresses["replay"] or ("", 0)
    _, snapshot_port = addresses["snapshot"] or ("", 0)
    return Servers(host, replay_port, snapshot_port, addresses["rerequest"][1] if addresses["rerequest"] else None)


def local_servers(node: Node) -> Servers:
    """Return the servers of a running node. Raises CommandError if it has no feed."""
    if not node.feed_ports:
        raise CommandError(FEED_OFF, ExitCode.UNAVAILABLE)
    host = split_address(node.config.gateway.feed.listen_replay)[0]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    ports = node.feed_ports
    return Servers(host, ports["listen_replay"], ports["listen_snapshot"], ports["listen_rerequest"])


def operator_token(config: Config) -> Token:
    """Return a token for today, made with the exchange's own key. Raises CommandError."""
    return mint(read_key(config), subscriber=OPERATOR, entitlements=Entitlement.ALL, last_day=datetime.now(UTC).date())


def read_key(config: Config) -> bytes:
    """Return the key of tokens. Raises CommandError if this account may not read it or there is none."""
    try:
        return config.feed_key_path.read_bytes()
    except FileNotFoundError as error:
        raise CommandError(
            f"{config.feed_key_path} is not there: give --user and --password, or the exchange's folder with --data",
            ExitCode.NO_INPUT,
        ) from error
    except PermissionError as error:
        raise CommandError(f"may not read {config.feed_key_path}", ExitCode.NO_PERMISSION) from error


async def answered(answer: Awaitable[Result], servers: Servers) -> Result:
    """Await something that talks to the feed; its errors become sentences."""
    try:
        return await answer
    except SoupRefused as error:
        raise CommandError(f"the feed refused the login: {error}", ExitCode.REFUSED) from error
    except (SoupClosed, OSError) as error:
        raise CommandError(f"no market feed answers at {servers.host}: {error}", ExitCode.UNAVAILABLE) from error
