"""The operator's client: one command or query at a time over the admin socket. Its file permission is the logon."""

import secrets
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from ringbuf.wire.base import WireMessage
from ringbuf.wire.codec import FrameHeader, FrameReader, UnknownTemplate, decode_block, encode_frame
from ringbuf.wire.messages import (
    AccountCreate,
    AccountQuery,
    AccountReply,
    AdminAck,
    AssetAdd,
    AssetQuery,
    AssetReply,
    BalanceAdjust,
    BalanceKind,
    BalanceQuery,
    BalanceReply,
    BusinessReject,
    CredentialType,
    FeeTierSet,
    InstrumentAdd,
    InstrumentLimits,
    InstrumentQuery,
    InstrumentReply,
    InstrumentState,
    InstrumentType,
    KeyCreate,
    KeyRevoke,
    MarketState,
    NotApplied,
    OpenOrdersQuery,
    OrderReply,
    Permissions,
    Quarantine,
    QueryEnd,
    RejectCode,
    SessionCreate,
    SessionKind,
    SessionQuery,
    SessionReply,
    Terminate,
)

Reply = TypeVar("Reply", bound=WireMessage)
TIMEOUT_S = 10.0
RECEIVE_BYTES = 65536
PX_MAX = (1 << 53) - 1
QTY_MAX = (1 << 53) - 1


class AdminError(Exception):
    """The exchange refused a command or query."""

    def __init__(self, code: RejectCode | int, limit: int = 0) -> None:
        name = code.name if isinstance(code, RejectCode) else str(code)
        super().__init__(f"{name} ({int(code)})" + (f", limit {limit}" if limit else ""))
        self.code = code
        self.limit = limit


AdminRefused = AdminError


class AdminClient:
    """Blocking, one request at a time. Raises AdminError when refused, OSError when nobody answers."""

    def __init__(self, path: str | Path, *, timeout_s: float = TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout_s)
        try:
            self._socket.connect(str(path))
        except OSError:
            self._socket.close()
            raise
        self._reader = FrameReader()
        # Other connections share the session: ids that nobody else draws.
        self._request_id = secrets.randbits(62)

    def __enter__(self) -> "AdminClient":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; what was commanded stays."""
        self._socket.close()

    # --- any message ------------------------------------------------------------------------------------------------

    def command(self, message: WireMessage) -> AdminAck:
        """Send an administration command and return its answer; `result_id` is the id it made."""
        # A quarantine has no number of its own: it is answered with the record it names.
        request = message if isinstance(message, Quarantine) else self._numbered(message)
        number = request.target_seq if isinstance(request, Quarantine) else request.request_id  # type: ignore[attr-defined]
        self._send(request)
        for received in self._received():
            if isinstance(received, AdminAck) and received.request_id == number:
                if received.code != RejectCode.NONE:
                    raise AdminError(received.code, received.limit)
                return received
            if isinstance(received, BusinessReject) and received.ref_template_id == message.TEMPLATE_ID:
                raise AdminError(received.reject_code)
            if isinstance(received, NotApplied):
                self._send(request)  # the gateway had to find its place in the numbers again
        raise AssertionError("unreachable: _received() ends with an exception")

    def query(self, message: WireMessage) -> list[WireMessage]:
        """Send a query and return its replies."""
        request = self._numbered(message)
        replies: list[WireMessage] = []
        self._send(request)
        for received in self._received():
            if getattr(received, "request_id", None) != request.request_id:  # type: ignore[attr-defined]
                continue
            if isinstance(received, QueryEnd):
                if received.code != RejectCode.NONE:
                    raise AdminError(received.code)
                return replies
            replies.append(received)
        raise AssertionError("unreachable: _received() ends with an exception")

    # --- commands ---------------------------------------------------------------------------------------------------

    def asset_add(self, symbol: str, *, exponent: int, asset_id: int = 0) -> int:
        """Add an asset whose unit is 10^exponent; return its id."""
        return self.command(AssetAdd(symbol=symbol, exponent=exponent, asset_id=asset_id)).result_id

    def instrument_add(
        self,
        symbol: str,
        *,
        base_asset_id: int,
        quote_asset_id: int,
        tick_size: int = 1,
        price_exponent: int,
        lot_size: int = 1,
        qty_exponent: int,
        quote_per_tick_lot: int,
        base_per_lot: int,
        partition: int = 0,
        instrument_id: int = 0,
    ) -> int:
        """Add a pair; return its id. Partition 0 lets the exchange choose."""
        message = InstrumentAdd(
            symbol=symbol,
            base_asset_id=base_asset_id,
            quote_asset_id=quote_asset_id,
            tick_size=tick_size,
            price_exponent=price_exponent,
            lot_size=lot_size,
            qty_exponent=qty_exponent,
            quote_per_tick_lot=quote_per_tick_lot,
            base_per_lot=base_per_lot,
            assigned_partition=partition,
            instrument_id=instrument_id,
            instrument_type=InstrumentType.SPOT,
        )
        return self.command(message).result_id

    def instrument_limits(
        self,
        instrument_id: int,
        *,
        min_qty: int = 1,
        max_qty: int = QTY_MAX,
        min_notional: int = 0,
        max_notional: int = 0,
        min_px: int = 1,
        max_px: int = PX_MAX,
        reference_px: int | None = None,
        band_up_bps: int = 0,
        band_down_bps: int = 0,
    ) -> None:
        """Replace all static filters of a pair."""
        self.command(
            InstrumentLimits(
                instrument_id=instrument_id,
                min_qty=min_qty,
                max_qty=max_qty,
                min_notional=min_notional,
                max_notional=max_notional,
                min_px=min_px,
                max_px=max_px,
                reference_px=reference_px,
                band_up_bps=band_up_bps,
                band_down_bps=band_down_bps,
            )
        )

    def instrument_state(self, instrument_id: int, state: MarketState) -> None:
        """Change the market state of a pair."""
        self.command(InstrumentState(instrument_id=instrument_id, state=state))

    def account_create(self, *, account_id: int = 0, stp_group_id: int = 0, firm_id: int = 0, fee_tier: int = 0) -> int:
        """Create an account; return its id."""
        message = AccountCreate(account_id=account_id, stp_group_id=stp_group_id, firm_id=firm_id, fee_tier=fee_tier)
        return self.command(message).result_id

    def balance_adjust(
        self,
        *,
        account_id: int,
        asset_id: int,
        amount: int,
        kind: BalanceKind = BalanceKind.DEPOSIT,
        reference: int = 0,
    ) -> None:
        """Add `amount` units (negative: take) to what is available."""
        self.command(
            BalanceAdjust(account_id=account_id, asset_id=asset_id, amount=amount, kind=kind, reference=reference)
        )

    def key_create(
        self,
        access_key_id: str,
        *,
        account_id: int,
        material: bytes,
        credential_type: CredentialType = CredentialType.ED25519,
        permissions: Permissions = Permissions.READ | Permissions.TRADE,
    ) -> None:
        """Register a key; `material` is the raw Ed25519 public key or the salt of an HMAC secret."""
        self.command(
            KeyCreate(
                access_key_id=access_key_id,
                account_id=account_id,
                material=material,
                credential_type=credential_type,
                permissions=permissions,
            )
        )

    def key_revoke(self, access_key_id: str) -> None:
        """Let a key log on no more."""
        self.command(KeyRevoke(access_key_id=access_key_id))

    def session_create(
        self, *, account_id: int, kind: SessionKind = SessionKind.ORDER_ENTRY, session_id: int = 0
    ) -> int:
        """Create a session of an account; return its id."""
        return self.command(SessionCreate(account_id=account_id, kind=kind, session_id=session_id)).result_id

    def fee_tier_set(self, *, tier: int, maker_rate: int, taker_rate: int, instrument_id: int = 0) -> None:
        """Set the rates of a tier in millionths; a negative maker rate is a rebate."""
        self.command(FeeTierSet(tier=tier, maker_rate=maker_rate, taker_rate=taker_rate, instrument_id=instrument_id))

    # --- queries ----------------------------------------------------------------------------------------------------

    def assets(self, asset_id: int = 0) -> list[AssetReply]:
        return self._of_kind(AssetReply, AssetQuery(asset_id=asset_id))

    def instruments(self, instrument_id: int = 0) -> list[InstrumentReply]:
        return self._of_kind(InstrumentReply, InstrumentQuery(instrument_id=instrument_id))

    def accounts(self, account_id: int = 0) -> list[AccountReply]:
        return self._of_kind(AccountReply, AccountQuery(account_id=account_id))

    def sessions(self, session_id: int = 0) -> list[SessionReply]:
        return self._of_kind(SessionReply, SessionQuery(session_id=session_id))

    def balances(self, account_id: int, asset_id: int = 0) -> list[BalanceReply]:
        return self._of_kind(BalanceReply, BalanceQuery(account_id=account_id, asset_id=asset_id))

    def open_orders(self, account_id: int, instrument_id: int = 0) -> list[OrderReply]:
        """Return the first rows of an account's open orders; go on with `OpenOrdersQuery(after_order_id=...)`."""
        return self._of_kind(OrderReply, OpenOrdersQuery(account_id=account_id, instrument_id=instrument_id))

    def _of_kind(self, kind: type[Reply], message: WireMessage) -> list[Reply]:
        return [reply for reply in self.query(message) if isinstance(reply, kind)]

    # --- frames -----------------------------------------------------------------------------------------------------

    def _numbered(self, message: WireMessage) -> WireMessage:
        self._request_id += 1
        return replace(message, request_id=self._request_id)

    def _send(self, message: WireMessage) -> None:
        # The gateway numbers the commands of session 1 itself; it only must see that this is one.
        self._socket.sendall(encode_frame(message, seq_num=1, sending_time=time.time_ns()))

    def _received(self) -> Iterator[WireMessage]:
        """Yield messages until the time is over. Raises TimeoutError, ConnectionError."""
        deadline = time.monotonic() + self._timeout_s
        while True:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise TimeoutError(f"no answer within {self._timeout_s} s")
            self._socket.settimeout(left_s)
            data = self._socket.recv(RECEIVE_BYTES)
            if not data:
                raise ConnectionResetError("the admin gateway closed the connection")
            for header, block in self._reader.raw(data):
                message = _decoded(header, block)
                if isinstance(message, Terminate):
                    raise ConnectionAbortedError(f"the admin gateway ended the connection: code {message.code}")
                if message is not None:
                    yield message


def _decoded(header: FrameHeader, block: bytes) -> WireMessage | None:
    try:
        return decode_block(header.template_id, header.block_length, block)
    except UnknownTemplate:
        return None  # of a newer schema: not what was asked for
