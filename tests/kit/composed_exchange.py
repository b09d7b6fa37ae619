"""A small exchange on the composed engine: two assets, one or more pairs, funded accounts with bound sessions."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from engine import ComposedEngine, EngineConfig, Output
from ringbuf.wire import messages as wire

BASE, QUOTE = 1, 2
PAIR = 1


@dataclass
class Exchange:
    """Builders over the composed engine; ids are handed out in order from 1."""

    engine: ComposedEngine
    sessions: dict[int, int] = field(default_factory=dict)  # account -> session
    client_ids: Iterator[int] = field(default_factory=lambda: iter(range(1, 1 << 30)))

    def admin(self, message: Any) -> wire.AdminAck:
        """Submit an administration command; return its answer."""
        acks = [out.message for out in self.engine.submit(1, message) if isinstance(out.message, wire.AdminAck)]
        assert len(acks) == 1
        return acks[0]

    def account(self, *, base: int = 0, quote: int = 0, fee_tier: int = 0, stp_group: int = 0) -> int:
        """Create a funded account with a bound session; return its id."""
        created = self.admin(wire.AccountCreate(fee_tier=fee_tier, stp_group_id=stp_group))
        account = created.result_id
        for asset, amount in ((BASE, base), (QUOTE, quote)):
            if amount:
                self.admin(
                    wire.BalanceAdjust(amount=amount, account_id=account, asset_id=asset, kind=wire.BalanceKind.DEPOSIT)
                )
        session = self.admin(wire.SessionCreate(account_id=account)).result_id
        self.engine.bind(session)
        self.sessions[account] = session
        return account

    def order(self, account: int, side: wire.Side, price: int | None, qty: int, **terms: Any) -> list[Output]:
        """Submit a new order (limit, GTC unless said otherwise); return all reports it caused."""
        defaults: dict[str, Any] = {
            "cl_ord_id": terms.pop("cl_ord_id", None) or next(self.client_ids),
            "price": price,
            "order_qty": qty,
            "instrument_id": PAIR,
            "side": side,
            "ord_type": wire.OrdType.MARKET if price is None else wire.OrdType.LIMIT,
            "time_in_force": wire.TimeInForce.GTC,
            "stp_mode": wire.StpMode.NONE,
        }
        return self.engine.submit(self.sessions[account], wire.NewOrderSingle(**(defaults | terms)))

    def buy(self, account: int, price: int | None, qty: int, **terms: Any) -> list[Output]:
        """Submit a buy order."""
        return self.order(account, wire.Side.BUY, price, qty, **terms)

    def sell(self, account: int, price: int | None, qty: int, **terms: Any) -> list[Output]:
        """Submit a sell order."""
        return self.order(account, wire.Side.SELL, price, qty, **terms)

    def cancel(self, account: int, order_id: int, **terms: Any) -> list[Output]:
        """Cancel by order id."""
        request = wire.OrderCancelRequest(
            cl_ord_id=next(self.client_ids), order_id=order_id, instrument_id=PAIR, **terms
        )
        return self.engine.submit(self.sessions[account], request)

    def replace(self, account: int, order_id: int, **terms: Any) -> list[Output]:
        """Replace by order id; quantity is the total including filled."""
        request = wire.OrderReplaceRequest(order_id=order_id, instrument_id=PAIR, **terms)
        return self.engine.submit(self.sessions[account], request)


def make_exchange(
    *, maker_rate: int = 0, taker_rate: int = 0, partitions: int = 1, ring_slots: int = 1 << 14, **capacities: Any
) -> Exchange:
    """Return a started exchange with one pair: one tick x one lot is one unit of quote, one lot one unit of base."""
    exchange = Exchange(ComposedEngine(EngineConfig(partitions=partitions, **capacities), ring_slots=ring_slots))
    exchange.engine.start()
    exchange.admin(wire.AssetAdd(exponent=0, symbol="BASE"))
    exchange.admin(wire.AssetAdd(exponent=0, symbol="QUOTE"))
    exchange.admin(
        wire.InstrumentAdd(
            tick_size=1,
            lot_size=1,
            quote_per_tick_lot=1,
            base_per_lot=1,
            base_asset_id=BASE,
            quote_asset_id=QUOTE,
            symbol="BASE-QUOTE",
        )
    )
    if maker_rate or taker_rate:
        exchange.admin(wire.FeeTierSet(maker_rate=maker_rate, taker_rate=taker_rate))
    return exchange


def of(outputs: list[Output], kind: type) -> list[Any]:
    """Return the messages of one kind, in order."""
    return [output.message for output in outputs if isinstance(output.message, kind)]
