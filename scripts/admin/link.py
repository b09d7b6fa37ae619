"""The command line's link to a running exchange: one administration command or query at a time, errors as sentences."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import TypeVar

from gateway.clients import AdminClient, AdminRefused
from ringbuf.wire import messages as wire
from ringbuf.wire.base import WireMessage
from scripts.config import Config
from scripts.exit_codes import CommandError, ExitCode

Reply = TypeVar("Reply", bound=WireMessage)
TIMEOUT_S = 10.0


class Refused(CommandError):
    """The exchange refused: `code` of the wire, and the bound that was passed."""

    def __init__(self, message: str, reject: wire.RejectCode | int) -> None:
        super().__init__(message, ExitCode.REFUSED)
        self.reject = reject


class AdminLink:
    """Commands and queries over the admin socket. Raises Refused, or CommandError when nobody answers."""

    def __init__(self, client: AdminClient) -> None:
        self._client = client

    @classmethod
    def open(cls, config: Config) -> AdminLink:
        return cls.at(config.admin_socket)

    @classmethod
    def at(cls, path: Path) -> AdminLink:
        try:
            return cls(AdminClient(str(path), timeout_s=TIMEOUT_S))
        except PermissionError as error:
            raise CommandError(f"may not open the admin socket {path}", ExitCode.NO_PERMISSION) from error
        except OSError as error:
            raise CommandError(
                f"no exchange answers at {path} ({error.strerror or error}); start one with ./scripts/run or "
                "`bullring run`, or name its folder with --data",
                ExitCode.UNAVAILABLE,
            ) from error

    def __enter__(self) -> AdminLink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._client.close()

    def command(self, message: WireMessage, what: str) -> int:
        """Send an administration command, return the id it made or concerned."""
        try:
            return self._client.command(message).result_id
        except AdminRefused as error:
            limit = f", limit {error.limit}" if error.limit else ""
            raise Refused(f"{what} refused: {code_name(error.code)}{limit}", error.code) from error
        except OSError as error:
            raise CommandError(f"{what}: no answer from the exchange: {error}", ExitCode.UNAVAILABLE) from error

    def query(self, message: WireMessage, kind: type[Reply]) -> list[Reply]:
        """Send a query and return its replies; an unknown id is an empty answer."""
        try:
            replies = self._client.query(message)
        except AdminRefused as error:
            if error.code in _UNKNOWN:
                return []
            raise Refused(f"query refused: {code_name(error.code)}", error.code) from error
        except OSError as error:
            raise CommandError(f"no answer from the exchange: {error}", ExitCode.UNAVAILABLE) from error
        return [reply for reply in replies if isinstance(reply, kind)]

    # --- reference data ---------------------------------------------------------------------------------------------

    def assets(self) -> dict[str, wire.AssetReply]:
        return {reply.symbol: reply for reply in self.query(wire.AssetQuery(), wire.AssetReply)}

    def instruments(self) -> dict[str, wire.InstrumentReply]:
        return {reply.symbol: reply for reply in self.query(wire.InstrumentQuery(), wire.InstrumentReply)}

    def asset(self, symbol: str) -> wire.AssetReply:
        assets = self.assets()
        if symbol not in assets:
            known = ", ".join(sorted(assets)) or "none"
            raise CommandError(f"unknown asset {symbol!r}; there are: {known}", ExitCode.BAD_INPUT)
        return assets[symbol]

    def instrument(self, symbol: str) -> wire.InstrumentReply:
        instruments = self.instruments()
        if symbol not in instruments:
            known = ", ".join(sorted(instruments)) or "none"
            raise CommandError(f"unknown instrument {symbol!r}; there are: {known}", ExitCode.BAD_INPUT)
        return instruments[symbol]

    def accounts(self) -> list[wire.AccountReply]:
        return self.query(wire.AccountQuery(), wire.AccountReply)

    def balances(self, account: int) -> list[wire.BalanceReply]:
        return self.query(wire.BalanceQuery(account_id=account), wire.BalanceReply)


_UNKNOWN = {
    wire.RejectCode.UNKNOWN_ACCOUNT,
    wire.RejectCode.UNKNOWN_ASSET,
    wire.RejectCode.UNKNOWN_INSTRUMENT,
    wire.RejectCode.UNKNOWN_KEY,
    wire.RejectCode.UNKNOWN_SESSION,
    wire.RejectCode.UNKNOWN_ORDER,
}


def code_name(code: int) -> str:
    """Return a reject code as `Name (number)`."""
    try:
        name = wire.RejectCode(code).name
    except ValueError:
        return str(code)
    return f"{''.join(part.capitalize() for part in name.split('_'))} ({int(code)})"
