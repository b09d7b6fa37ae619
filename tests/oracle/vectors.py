"""Recorded test vectors of other people's engines, run against a target through the driver.

Each vector is a list of steps with what the original engine did. What asks for something we do not have, or decided
otherwise, is in `EXCLUDED` with the reason; everything else must agree.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

from ringbuf.wire.messages import (
    CancelReason,
    ExecInst,
    MarketState,
    OrdType,
    Side,
    StpMode,
    TimeInForce,
)
from tests.oracle.adapter import Target
from tests.oracle.choices import SECOND_NS
from tests.oracle.driver import BASE, QUOTE, Driver, Events, MakeTarget
from tests.oracle.exchange import START_NS
from tests.oracle.world import World

SIDES = {"buy": Side.BUY, "sell": Side.SELL}
STP_MODES = {
    "none": StpMode.NONE,
    "cancel_taker": StpMode.CANCEL_TAKER,
    "cancel_maker": StpMode.CANCEL_MAKER,
    "decrement": StpMode.DECREMENT,
    "transfer": StpMode.TRANSFER,
}
TIFS = {
    "GTC": TimeInForce.GTC,
    "IOC": TimeInForce.IOC,
    "FOK": TimeInForce.FOK,
    "GTD": TimeInForce.GTD,
    # Good for auction: the runner cancels what is left after the uncrossing.
    "GFA": TimeInForce.GTC,
}
KINDS = {
    ("stop_loss", False): OrdType.STOP,
    ("stop_loss", True): OrdType.STOP_LIMIT,
    ("take_profit", False): OrdType.TAKE_PROFIT,
    ("take_profit", True): OrdType.TAKE_PROFIT_LIMIT,
    ("stop", False): OrdType.STOP,
}
DERIVATIVES = ("margin", "adl", "fee")
# Vectors that follow other rules than ours, by what their names contain: (names, why). docs/MATCHING.md, section 19.
EXCLUDED: tuple[tuple[tuple[str, ...], str], ...] = (
    (("lq.all_or_none.",), "all-or-none orders rest in the book"),
    (
        ("lq.market_price.", "MatchMarketOrderAsk", "MatchMarketOrderBid", "MatchMultipleMarketOrder"),
        "market orders rest in the book",
    ),
    (
        ("TestStopMarketOrdersOnMarketTradeImmediately", "If_Stop_Price_Is_Less_Than_Market", "vg.stop.050_"),
        "a stop order whose condition holds already triggers at once",
    ),
    (("RejectsOrder_QuantityEqualToTotalQuantity",), "an iceberg that shows all is refused"),
    (
        ("FillsFullQuantityFOKMarketOrderAmount", "Accepts_OrderAmountOnlySupported", "om.StopMarketOrderAmount."),
        "quote amounts go with fill-or-kill, with stops and with dates",
    ),
    (("om.OrderAmountImmediateOrCancelOrder.",), "a quote amount may not be immediate-or-cancel"),
    (("#checking_auction_price", "vg.verified.0032-PRIM-"), "uncrosses at the middle of the best range"),
    (("amend-order#Reduce_size_with_delta_success",), "a replace that changes nothing is accepted"),
    (("px.", "bitmex.", "bybit."), "derivatives: margin, liquidation, auto-deleveraging"),
)
# Kept, though their run differs in one point that the runner allows for everywhere.
ALLOWED = (
    "a post-only order that would trade is refused here, accepted and canceled there",
    "an order that would expire at once is refused here, accepted and canceled there",
    "fees are charged in the asset received here, in the quote asset there: fees are not compared",
    "a replace to what is filled or less is a cancel there: sent as one",
    "good-for-auction orders: canceled by the runner after the uncrossing",
)
HELPER_FIRST = 1 << 30


class Differs(AssertionError):
    """The target did otherwise than the vector says."""


class Unsupported(Exception):
    """A step asks for what is excluded; the message is the reason."""


def read_vectors(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt") as lines:
        for line in lines:
            yield json.loads(line)


class VectorRun:
    """One vector on one fresh target."""

    def __init__(self, vector: dict[str, Any], target: Target) -> None:
        self.vector = vector
        self.family = vector["name"].split(".")[0]
        self.scale = 10 if any(self.has_fraction(step) for step in vector["steps"]) else 1
        symbol = next((step["symbol"] for step in vector["steps"] if "symbol" in step), {})
        self.driver = Driver(
            target,
            base_per_lot=int(symbol.get("base_scale", 1)),
            quote_per_tick_lot=int(symbol.get("quote_scale", 1)),
        )
        prices = [price for step in vector["steps"] for price in self.prices_in(step)]
        top = max([*prices, 1])
        self.driver.add_market(price_max=top * 4, reference_px=top)
        self.helper = HELPER_FIRST
        self.seconds = 0
        self.auctioned: list[int] = []
        self.history: list[dict[int, tuple[int, int]]] = []
        self.trades: Counter[tuple[Any, ...]] = Counter()
        if any(step["op"] == "uncross" for step in vector["steps"]):
            self.driver.set_state(MarketState.AUCTION)

    # -- numbers ---------------------------------------------------------------------------------------------------

    def has_fraction(self, step: dict[str, Any]) -> bool:
        return any("." in str(step.get(name, "")) for name in ("price", "qty"))

    def prices_in(self, step: dict[str, Any]) -> list[int]:
        levels = [*step.get("bids", []), *step.get("asks", [])]
        named = [step.get("price"), step.get("stop"), *step.get("path", []), step.get("start")]
        return [self.ticks(price) for price in [*(price for price, _ in levels), *named] if price is not None]

    def ticks(self, value: Any) -> int:
        return int(Decimal(str(value)) * self.scale)

    def lots(self, value: Any) -> int:
        return int(Decimal(str(value)) * self.scale)

    def units(self, value: Any, asset: str) -> int:
        return int(Decimal(str(value)) * self.scale ** (2 if asset.startswith(("USD", "XBT")) else 1))

    # -- steps -----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Do every step; raise Differs where the target goes another way, Unsupported where it has none."""
        for step in self.vector["steps"]:
            self.history.append({n: (o.filled, o.cost) for n, o in self.driver.orders.items()})
            if step["op"] in DERIVATIVES:
                raise Unsupported("derivatives and other products")
            getattr(self, f"do_{step['op']}")(step, step.get("expect", {}))
        self.check_end(self.vector.get("expect", {}))

    def do_new(self, step: dict[str, Any], expected: dict[str, Any]) -> None:
        if step.get("tif") == "AON":
            raise Unsupported("all-or-none orders do not rest")
        self.reach(step.get("t"))
        owner = str(step.get("owner", f"own {step['id']}"))
        quantity = self.lots(step["qty"]) if "qty" in step else self.ticks(step["quote_amount"])
        price = self.ticks(step["price"]) if "price" in step and step["type"] != "market" else None
        before = self.driver.orders.get(step["id"])
        was_open = before is not None and before.is_open
        events = self.driver.order(step["id"], owner, SIDES[step["side"]], quantity, price, **self.terms_of(step))
        if step.get("tif") == "GFA":
            self.auctioned.append(step["id"])
        self.compare(step, expected, events, was_open=was_open)

    def terms_of(self, step: dict[str, Any]) -> dict[str, Any]:
        kinds = {
            "limit": OrdType.LIMIT,
            "market": OrdType.MARKET,
            "stop_market": OrdType.STOP,
            "stop_limit": OrdType.STOP_LIMIT,
        }
        terms: dict[str, Any] = {
            "ord_type": kinds[step["type"]],
            "time_in_force": TIFS[step.get("tif", "GTC")],
            "stp_mode": self.stp_mode(step),
            "exec_inst": (ExecInst.POST_ONLY if step.get("post_only") else 0)
            | (ExecInst.QUOTE_AMOUNT if "quote_amount" in step else 0),
        }
        if "display" in step:
            terms["display_qty"] = self.lots(step["display"])
        if "stop" in step:
            terms["stop_px"] = self.ticks(step["stop"])
        if "expire_at" in step:
            terms["expire_time"] = START_NS // SECOND_NS + int(step["expire_at"])
        return terms

    def stp_mode(self, step: dict[str, Any]) -> int:
        if self.family == "vg" and not self.is_collecting:
            # What that engine calls a wash trade stops the aggressor; in auctions it happens.
            return StpMode.CANCEL_TAKER
        return STP_MODES[step.get("stp", "none")]

    @property
    def is_collecting(self) -> bool:
        return any(step["op"] == "uncross" for step in self.vector["steps"][len(self.history) - 1 :])

    def reach(self, second: int | None) -> Events:
        """Let time pass to a second of the vector; what is due there has happened then."""
        if second is None or second <= self.seconds:
            return Events()
        ns = (second - self.seconds) * SECOND_NS
        self.seconds = second
        return self.driver.tick(ns)

    def do_cancel(self, step: dict[str, Any], expected: dict[str, Any]) -> None:
        self.compare(step, expected, self.driver.cancel(step["id"]))

    def do_expire(self, step: dict[str, Any], expected: dict[str, Any]) -> None:
        self.compare(step, expected, self.reach(step["t"]))

    def do_replace(self, step: dict[str, Any], expected: dict[str, Any]) -> None:
        """Change quantity by a difference, and the price; what leaves nothing open is a cancel."""
        number = step["id"]
        terms: dict[str, Any] = {"order_qty": self.new_total(number, step)}
        if "price" in step:
            terms["price"] = self.ticks(step["price"])
        if terms["order_qty"] <= self.driver.orders[number].filled:
            self.compare(step, expected, self.driver.cancel(number))
            return
        before = self.driver.orders[number].filled
        self.compare(step, expected, self.driver.replace(number, **terms))
        self.expect("filled by the replace", expected.get("filled_by_this"), self.driver.orders[number].filled - before)

    def new_total(self, number: int, step: dict[str, Any]) -> int:
        return self.driver.orders[number].total + self.lots(step.get("qty_change", 0))

    def do_amend(self, step: dict[str, Any], expected: dict[str, Any]) -> None:
        if step.get("tif") not in (None, "GTC") or "expiry" in step:
            raise Unsupported("a replace changes price, quantity and display quantity only")
        self.do_replace(step, expected)

    def do_amend_keep_priority(self, step: dict[str, Any], expected: dict[str, Any]) -> None:
        self.compare(step, expected, self.driver.amend(step["id"], self.lots(step["qty"])))

    def do_uncross(self, step: dict[str, Any], expected: dict[str, Any]) -> None:
        self.count(self.driver.set_state(MarketState.CONTINUOUS))
        for number in self.auctioned:
            if self.driver.orders[number].is_open:
                self.driver.cancel(number)

    def do_set_last_price(self, step: dict[str, Any], expected: dict[str, Any]) -> None:
        self.trade_at(self.ticks(step["price"]))

    def trade_at(self, price: int) -> Events:
        """Make a trade of one lot between two accounts of the runner."""
        self.helper += 2
        first = self.driver.order(self.helper, "helper 1", Side.SELL, 1, price)
        second = self.driver.order(self.helper + 1, "helper 2", Side.BUY, 1, price)
        second.triggered = first.triggered + second.triggered
        return second

    def do_balances(self, step: dict[str, Any], expected: dict[str, Any]) -> None:
        for owner, assets in step["set"].items():
            units = {BASE: 0, QUOTE: 0}
            for asset, amount in assets.items():
                units[self.asset_id(asset)] = self.units(amount, asset)
            group = step.get("trade_group", {}).get(owner, 0)
            self.driver.open_account(owner, group=group, funds=(units[BASE], units[QUOTE]))

    def asset_id(self, asset: str) -> int:
        return QUOTE if asset.startswith(("USD", "XBT")) else BASE

    def do_credit(self, step: dict[str, Any], expected: dict[str, Any]) -> None:
        owner, asset = str(step["owner"]), step["asset"]
        self.driver.credit(owner, self.asset_id(asset), self.units(step["amount"], asset))

    def do_assert_balances(self, step: dict[str, Any], expected: dict[str, Any]) -> None:
        for owner, assets in step["free"].items():
            for asset, amount in assets.items():
                free, _ = self.driver.target.balance(self.driver.accounts[owner], self.asset_id(asset))
                self.expect(f"free {asset} of {owner}", self.units(amount, asset), free)

    # -- whole situations in one step --------------------------------------------------------------------------------

    def do_auction(self, step: dict[str, Any], expected: dict[str, Any]) -> None:
        """Fill a book in a call phase and uncross it."""
        self.driver.set_state(MarketState.AUCTION)
        number = 0
        for name, side in (("bids", Side.BUY), ("asks", Side.SELL)):
            for price, quantity in step[name]:
                number += 1
                self.driver.order(number, f"own {number}", side, self.lots(quantity), self.ticks(price))
        events = self.driver.set_state(MarketState.CONTINUOUS)
        self.expect("auction prices", {self.ticks(expected["price"])}, {trade.price for trade in events.trades})
        traded = sum(trade.quantity for trade in events.trades)
        self.expect("auction quantity", self.lots(expected["qty"]), traded)

    def do_last_price_path(self, step: dict[str, Any], expected: dict[str, Any]) -> None:
        """Move the last price along a path by small trades; the order must fire where it should."""
        order = step["order"]
        self.trade_at(self.ticks(step["start"]))
        has_limit = order.get("limit") is not None
        terms: dict[str, Any] = {"ord_type": KINDS[order["kind"], has_limit]}
        if order["kind"] == "stop" and ("last>=" in order["condition"]) != (order["side"] == "buy"):
            terms["ord_type"] = OrdType.TAKE_PROFIT
        if order.get("stop") is not None:
            terms["stop_px"] = self.ticks(order["stop"])
        if "trail" in order:
            terms["trailing_delta"] = int(order["trail"])
        price = self.ticks(order["limit"]) if has_limit else None
        events = self.driver.order(1, "waits", SIDES[order["side"]], 1, price, **terms)
        if events.rejected:
            raise Differs("the order is refused: it would trigger immediately")
        for at in map(self.ticks, step["path"]):
            if 1 in self.trade_at(at).triggered:
                self.expect("price that fires", self.ticks(expected["triggered_at"]), at)
                return
        raise Differs("the order never fires")

    # -- comparing -------------------------------------------------------------------------------------------------

    def expect(self, what: str, wanted: Any, got: Any) -> None:
        if wanted is not None and wanted != got:
            raise Differs(f"{what}: {wanted} expected, got {got}")

    def count(self, events: Events) -> None:
        for trade in events.trades:
            taker, maker = self.driver.orders[trade.taker], self.driver.orders[trade.maker]
            buyer, seller = (taker, maker) if taker.side == Side.BUY else (maker, taker)
            self.trades[buyer.owner, seller.owner, trade.price, trade.quantity] += 1

    def compare(
        self, step: dict[str, Any], expected: dict[str, Any], events: Events, *, was_open: bool = False
    ) -> None:
        """Compare what a step did with what the vector says it did."""
        self.count(events)
        number = step.get("id", 0)
        if "result" in expected:
            was_rejected = bool(events.rejected) or any(r.name == "CancelReplaceReject" for r in events.others)
            if events.rejected and self.says_canceled(expected, number):
                # There a post-only order that would trade is canceled, here it is refused.
                was_rejected = False
            self.expect("rejected", expected["result"] == "rejected", was_rejected)
        if "events" in expected:
            self.compare_events(expected["events"], events)
        for other, quantity in expected.get("remaining", {}).items():
            self.compare_remaining(int(other), quantity)
        self.expect("number of trades", expected.get("n_trades"), len(events.trades))
        self.expect("matched", expected.get("matched"), bool(events.trades) if step["op"] == "new" else None)
        if "state" in expected and step["op"] == "new":
            is_open = self.driver.orders[number].is_open
            self.expect("open", expected["state"] == "open", is_open)

    def says_canceled(self, expected: dict[str, Any], number: int) -> bool:
        return any(event["e"] == "cancel" and event["id"] == number for event in expected.get("events", []))

    def compare_remaining(self, number: int, quantity: Any) -> None:
        """The vectors keep what was left when an order ended; only of open orders do we know it."""
        if self.driver.orders[number].is_open:
            self.expect(f"remaining of {number}", self.lots(quantity), self.driver.leaves(number))

    def compare_events(self, wanted: list[dict[str, Any]], events: Events) -> None:
        trades: Counter[tuple[Any, ...]] = Counter()
        for event in wanted:
            if event["e"] in ("trade", "transfer"):
                key = (event["taker"], event["maker"], self.ticks(event["price"]), event["e"] == "transfer")
                trades[key] += self.lots(event["qty"])
        seen: Counter[tuple[Any, ...]] = Counter()
        for trade in events.trades:
            seen[trade.taker, trade.maker, trade.price, trade.is_transfer] += trade.quantity
        self.expect("trades", trades, seen)
        triggers = sorted(event["id"] for event in wanted if event["e"] == "trigger")
        self.expect("triggers", triggers, sorted(events.triggered))
        by_stp = [event for event in wanted if event["e"] == "cancel" and event["reason"] in ("stp", "self_match")]
        lost = Counter({event["id"]: self.lots(event["qty"]) for event in by_stp})
        lost.update({event["id"]: self.lots(event["qty"]) for event in wanted if event["e"] == "decrement"})
        prevented: Counter[int] = Counter()
        for number, quantity in events.prevented:
            prevented[number] += quantity
        self.expect("prevented", lost, prevented)
        self.compare_cancels(wanted, events)

    def compare_cancels(self, wanted: list[dict[str, Any]], events: Events) -> None:
        """Every order that the vector ends must have ended, but for what only its own conventions end."""
        for event in wanted:
            if event["e"] == "cancel":
                self.expect(f"order {event['id']} is open", False, self.driver.orders[event["id"]].is_open)
        ended = {number for number, _, reason in events.canceled if reason == CancelReason.EXPIRED}
        told = {event["id"] for event in wanted if event["e"] == "cancel"}
        self.expect("expired", True, ended <= told)

    # -- assertions of vectors -------------------------------------------------------------------------------------

    def do_assert(self, step: dict[str, Any], expected: dict[str, Any]) -> None:
        for number, wanted in step.get("filled", {}).items():
            followed = self.driver.orders[int(number)]
            before = self.history[step["since_step"]].get(int(number), (0, 0))
            got = (followed.filled - before[0], followed.cost - before[1])
            self.expect(f"filled of {number}", (wanted["qty"], wanted["cost"]), got)
        for name, side in (("bids", Side.BUY), ("asks", Side.SELL)):
            wanted_levels = [tuple(level) for level in step.get("top", {}).get(name, [])]
            self.expect(name, wanted_levels, self.driver.levels(side)[: len(wanted_levels)])

    def do_assert_trades(self, step: dict[str, Any], expected: dict[str, Any]) -> None:
        left = self.trades.copy()
        for wanted in step["contains"]:
            match = [
                key
                for key in left
                if left[key] > 0
                and wanted.get("buyer") in (None, key[0])
                and wanted.get("seller") in (None, key[1])
                and key[2:] == (self.ticks(wanted["price"]), self.lots(wanted["qty"]))
            ]
            if not match:
                raise Differs(f"no trade {wanted} among {dict(self.trades)}")
            left[match[0]] -= 1

    def do_assert_levels(self, step: dict[str, Any], expected: dict[str, Any]) -> None:
        for side, price, quantity in step["levels"]:
            levels = {level: visible for level, _, visible in self.driver.levels(SIDES[side])}
            self.expect(f"{side} {price}", self.lots(quantity), levels.get(self.ticks(price), 0))

    def do_assert_icebergs(self, step: dict[str, Any], expected: dict[str, Any]) -> None:
        for wanted in step["icebergs"]:
            if wanted["status"] != "active":
                continue
            shown = [
                (self.driver.orders[number].owner, price, visible, self.driver.leaves(number) - visible)
                for side in (Side.BUY, Side.SELL)
                for number, price, visible in self.driver.queue(side)
            ]
            iceberg = (wanted["owner"], self.ticks(wanted["price"]), int(wanted["visible"]), int(wanted["hidden"]))
            self.expect(f"iceberg {iceberg}", True, iceberg in shown)

    def do_assert_uncross(self, step: dict[str, Any], expected: dict[str, Any]) -> None:
        at_price = {key[2] for key in self.trades}
        self.expect("uncrossing price", {self.ticks(step["price"])}, at_price)
        traded = sum(key[3] * count for key, count in self.trades.items())
        self.expect("uncrossing quantity", self.lots(step["qty"]), traded)

    def check_end(self, expected: dict[str, Any]) -> None:
        for name, side in (("bids", Side.BUY), ("asks", Side.SELL)):
            if "book" in expected:
                wanted = [(self.ticks(price), self.lots(quantity)) for price, quantity in expected["book"][name]]
                self.expect(name, wanted, [(price, visible) for price, _, visible in self.driver.levels(side)])
        for level, queue in expected.get("queue", {}).items():
            side, price = level.split("@")
            wanted_queue = [(number, self.lots(quantity)) for number, quantity in queue]
            got = [(n, visible) for n, at, visible in self.driver.queue(SIDES[side]) if at == self.ticks(price)]
            self.expect(level, wanted_queue, got)
        for number, quantity in expected.get("prevented", {}).items():
            self.expect(f"prevented of {number}", self.lots(quantity), self.driver.orders[int(number)].prevented)
        for owner, assets in expected.get("balances", {}).items():
            for asset, (free, held) in assets.items():
                got_balance = self.driver.target.balance(self.driver.accounts[owner], self.asset_id(asset))
                self.expect(f"{asset} of {owner}", (self.units(free, asset), self.units(held, asset)), got_balance)


def run_vector(vector: dict[str, Any], make_target: MakeTarget) -> None:
    """Run one vector on a fresh target."""
    with closing(make_target(World(partitions=1, orders_max=1024))) as target:
        VectorRun(vector, target).run()


def exclusion_of(name: str) -> str | None:
    """Return why a vector is excluded; None if it has to agree."""
    return next((why for names, why in EXCLUDED if any(part in name for part in names)), None)
