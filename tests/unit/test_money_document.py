"""The numbers of docs/MONEY.md: its sums are right, and they are what the engine holds, pays and charges.

`python -m tests.unit.test_money_document` prints the ledger block as the document must have it.
"""

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest

from engine.engine import ACCOUNT_DUST, ACCOUNT_VENUE
from ringbuf.wire import messages as wire
from tests.kit.composed_exchange import Exchange, of
from tests.kit.documents import bitcoin_exchange, fenced

BTC, USDT = 1, 2
SELLER, BUYER = 1, 2
HOUSE = {"venue": ACCOUNT_VENUE, "dust": ACCOUNT_DUST}
START_BTC = 100_000_000
START_USDT = 1_000_000_000_000


@dataclass(frozen=True)
class Step:
    """One line of the ledger: what happened, the fees it caused, and everybody's balances behind it."""

    name: str
    fees: tuple[int, ...]
    balances: tuple[int, ...]


def balances(exchange: Exchange) -> tuple[int, ...]:
    engine = exchange.engine
    wanted = [(SELLER, BTC), (SELLER, USDT), (BUYER, BTC), (BUYER, USDT)]
    both = [amount for account, asset in wanted for amount in engine.balance(account, asset)]
    return (*both, *(engine.balance(account, asset)[0] for account in HOUSE.values() for asset in (BTC, USDT)))


def ledger() -> list[Step]:
    """Play the document's steps and return what the engine says."""
    exchange = bitcoin_exchange()
    assert (exchange.account(base=START_BTC), exchange.account(quote=START_USDT)) == (SELLER, BUYER)
    steps = [Step("0", (), balances(exchange))]

    def note(name: str, outputs: list[Any]) -> list[Any]:
        exchange.engine.check()
        fees = tuple(fill.fee for fill in of(outputs, wire.OrderExecuted))
        steps.append(Step(name, fees, balances(exchange)))
        return outputs

    bid = of(note("A", exchange.buy(BUYER, 4_290_000, 1000)), wire.OrderAccepted)[0].order_id
    note("B", exchange.sell(SELLER, 4_285_000, 300, time_in_force=wire.TimeInForce.IOC))
    note("C", exchange.sell(SELLER, 4_299_999, 500))
    note("D", exchange.buy(BUYER, 4_300_000, 101, time_in_force=wire.TimeInForce.IOC))
    note("E", exchange.buy(BUYER, None, 1))
    note("F", exchange.replace(BUYER, bid, price=4_295_000, order_qty=1200))
    note("G", exchange.sell(BUYER, 4_295_000, 50, stp_mode=wire.StpMode.DECREMENT))
    note("H", exchange.cancel(BUYER, bid))
    return steps


def render(steps: list[Step]) -> str:
    """Return the ledger as the document shows it: per step the fees of its fills and every balance that changed."""
    names = [(who, asset) for who in ("seller", "buyer") for asset in ("BTC", "USDT")]
    lines = []
    for before, after in pairwise(steps):
        change = [new - old for old, new in zip(before.balances, after.balances, strict=True)]
        fees = "".join(f"   {side} fee {fee}" for side, fee in zip(("maker", "taker"), after.fees, strict=False))
        lines.append(f"{after.name}{fees}")
        for index, (who, asset) in enumerate(names):
            available, held = change[2 * index], change[2 * index + 1]
            parts = [f"{name} {amount:+}" for name, amount in (("available", available), ("held", held)) if amount]
            if parts:
                lines.append(f"   {who:<6} {asset:<4} {'   '.join(parts)}")
        house = [(who, asset) for who in HOUSE for asset in ("BTC", "USDT")]
        lines += [f"   {who:<6} {asset:<4} {change[8 + i]:+}" for i, (who, asset) in enumerate(house) if change[8 + i]]
    return "\n".join(lines)


def sums(language: str = "sums") -> list[tuple[str, int]]:
    """Return (expression, result) of every line of the document's blocks of this kind."""
    lines = [line for block in fenced("MONEY.md", language) for line in block.split("\n")]
    found = []
    for line in lines:
        matched = re.fullmatch(r"\s*(?P<left>[^=]+)=\s*(?P<right>-?\d+)(\s{2,}.*)?", line)
        assert matched is not None, line
        found.append((matched["left"].strip(), int(matched["right"])))
    return found


def value(expression: str) -> int:
    """Work out a sum of the document: whole numbers, + - * and up()/down() for a division by 10^6 or 10^4."""
    assert re.fullmatch(r"[\d\s+*()/,a-z-]+", expression), expression
    names = {"up": lambda amount, by: -(-amount // by), "down": lambda amount, by: amount // by}
    return int(eval(expression, {"__builtins__": {}}, names))


def test_ledger_of_the_document_is_what_the_engine_says() -> None:
    assert fenced("MONEY.md", "ledger") == [render(ledger())]


def test_sums_of_the_document_are_right() -> None:
    assert len(sums()) >= 20

    for left, right in sums():
        assert value(left) == right, left


def test_every_sum_is_an_amount_the_engine_moved() -> None:
    """Fees, balances, or the difference of one balance between two steps."""
    steps = ledger()
    moved = {fee for step in steps for fee in step.fees} | {amount for step in steps for amount in step.balances}
    for before, after in pairwise(steps):
        moved |= {new - old for old, new in zip(before.balances, after.balances, strict=True)}
    moved |= {-amount for amount in moved}

    assert [left for left, right in sums() if right not in moved] == []


@pytest.mark.parametrize(("index", "price", "lots"), [(0, 4_300_000, 101), (1, None, 1)])
def test_hold_of_the_document_is_exactly_what_an_order_needs(index: int, price: int | None, lots: int) -> None:
    expression, hold = sums("holds")[index]
    exchange = bitcoin_exchange()
    short, exact = exchange.account(quote=hold - 1), exchange.account(quote=hold)
    seller = exchange.account(base=START_BTC)
    # The last trade is the reference of the market order's protection price.
    other = exchange.account(quote=START_USDT)
    exchange.sell(seller, 4_299_999, 500)
    exchange.buy(other, 4_299_999, 1)

    refused = of(exchange.buy(short, price, lots), wire.OrderRejected)
    taken = of(exchange.buy(exact, price, lots), wire.OrderAccepted)

    assert value(expression) == hold
    assert [(report.reject_code, report.limit) for report in refused] == [
        (wire.RejectCode.INSUFFICIENT_BALANCE, hold - 1)
    ]
    assert len(taken) == 1


def test_nothing_is_made_or_lost() -> None:
    for step in ledger():
        seller, buyer, house = step.balances[:4], step.balances[4:8], step.balances[8:]
        assert sum(seller[:2]) + sum(buyer[:2]) + sum(house[::2]) == START_BTC
        assert sum(seller[2:]) + sum(buyer[2:]) + sum(house[1::2]) == START_USDT


if __name__ == "__main__":
    print(render(ledger()))
