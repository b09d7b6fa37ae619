"""The worked example of docs/LEDGER.md: what the books say of it, and that its tables name everything there is.

`python -m tests.unit.test_ledger_document` prints the postings block as the document must have it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ringbuf.wire import messages as wire
from scripts.config import load
from settlement.chart import Book, Code, account_name
from settlement.order_terms import CANCELED_BY, FIELDS_NOT_HELD
from settlement.schema import MIGRATIONS
from tests.kit.composed_exchange import Exchange, of
from tests.kit.documents import DOCS, bitcoin_exchange, fenced
from tests.kit.ledger_run import LedgerRun

BTC, USDT = 1, 2
SELLER, BUYER = 1, 2
ASSETS = {BTC: "BTC", USDT: "USDT"}
CLIENTS = {SELLER: "seller", BUYER: "buyer"}


def who(book: int, account: int) -> str:
    return CLIENTS[account] if book == Book.CLIENT else account_name(Book(book), account)


class Example:
    """Plays a step at a time and writes down what it posted."""

    def __init__(self) -> None:
        self.exchange: Exchange = bitcoin_exchange()
        self.run = LedgerRun(self.exchange.engine)
        self.lines: list[str] = []

    def note(self, name: str) -> None:
        self.run.tick()
        rows = self.run.derivation.take().postings
        self.lines.append(name)
        for row in np.lexsort((rows["idx"], rows["sequence"])).tolist():
            values = {key: int(column[row]) for key, column in rows.items()}
            parts = [f"{part} {values[part]:+}" for part in ("available", "held") if values[part]]
            code = Code(values["code"]).name.lower()
            self.lines.append(
                f"   {who(values['book'], values['account']):<11} {ASSETS[values['asset']]:<4} {code:<18} "
                f"{'   '.join(parts)}"
            )

    def adjust(self, account: int, asset: int, amount: int, kind: wire.BalanceKind, reference: int = 0) -> None:
        message = wire.BalanceAdjust(amount=amount, account_id=account, asset_id=asset, kind=kind, reference=reference)
        assert self.exchange.admin(message).code == wire.RejectCode.NONE


def example() -> Example:
    played = Example()
    exchange, kinds = played.exchange, wire.BalanceKind
    exchange.account(base=100_000_000)
    played.note("A")
    exchange.account()
    played.adjust(BUYER, USDT, 1_000_000_000_000, kinds.DEPOSIT, reference=7)
    played.note("B")
    played.adjust(BUYER, USDT, 0, kinds.DEPOSIT, reference=7)
    played.note("C")
    bid = of(exchange.buy(BUYER, 4_290_000, 1000), wire.OrderAccepted)[0].order_id
    played.note("D")
    exchange.sell(SELLER, 4_285_000, 300, time_in_force=wire.TimeInForce.IOC)
    played.note("E")
    exchange.cancel(BUYER, bid)
    played.note("F")
    played.adjust(BUYER, BTC, -200_000, kinds.WITHDRAWAL, reference=8)
    played.note("G")
    played.adjust(BUYER, BTC, 200_000, kinds.WITHDRAWAL, reference=8)
    played.note("H")
    played.adjust(SELLER, BTC, 50, kinds.ADJUSTMENT)
    played.note("I")
    played.adjust(SELLER, BTC, -50, kinds.ADJUSTMENT)
    played.note("J")
    return played


def trial_balance(played: Example) -> str:
    """Return the books at the end, the sum of each asset below."""
    lines, sums = [], dict.fromkeys(ASSETS, 0)
    for (book, account, asset), (available, held) in sorted(played.run.derivation.balances().as_dict().items()):
        sums[asset] += available + held
        if available or held:
            lines.append(f"{who(book, account):<11} {ASSETS[asset]:<4} {available + held:>14}")
    lines += [f"{'sum':<11} {ASSETS[asset]:<4} {units:>14}" for asset, units in sums.items()]
    return "\n".join(lines)


def test_postings_of_the_document_are_what_the_books_say() -> None:
    played = example()

    assert fenced("LEDGER.md", "postings") == ["\n".join(played.lines)]
    assert fenced("LEDGER.md", "trial-balance") == [trial_balance(played)]
    assert played.run.differences(range(3), range(1, 3)) == []


def test_everything_of_the_chart_is_in_the_document() -> None:
    text = (DOCS / "LEDGER.md").read_text(encoding="utf-8")

    missing = [book.name for book in Book if f"| `{book.name.lower()}` |" not in text]
    missing += [code.name for code in Code if f"`{code.name.lower()}`" not in text]
    missing += [table.name for migration in MIGRATIONS for table in migration.tables if f"`{table.name}`" not in text]
    missing += [event for event in {*CANCELED_BY.values(), "CAMO"} if event not in text]
    missing += [field for field in FIELDS_NOT_HELD if field not in text]
    assert missing == []


def test_configurations_of_the_document_are_accepted(tmp_path: Path) -> None:
    blocks = fenced("LEDGER.md", "toml")

    stores = []
    for number, block in enumerate(blocks):
        file = tmp_path / f"{number}.toml"
        file.write_text(block, encoding="utf-8")
        stores.append(load(file, {}).ledger.store)
    assert stores == ["clickhouse", "clickhouse"]


if __name__ == "__main__":
    done = example()
    print("\n".join(done.lines), trial_balance(done), sep="\n\n")
