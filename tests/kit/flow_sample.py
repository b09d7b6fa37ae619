"""Make the small recorded set tests/vectors/flow_sample: a slow, obvious book decides, sharing nothing with the engine.

`python tests/kit/flow_sample.py` writes it anew; a test compares what is committed with what this makes.
"""

import csv
import gzip
import io
import json
import random
from dataclasses import dataclass
from pathlib import Path

SEED = 20260502
COMMANDS = 1200
CHECKPOINT_EVERY = 50
START_NS = 1_777_689_380_000_000_000
STEP_NS = 1_000_000
MIDDLE, DEPTH = 50_000, 25
SAMPLE = Path(__file__).resolve().parents[1] / "vectors" / "flow_sample"
COLUMNS = {
    "commands": "ts_ns,cmd,order_id,side,price,qty,tif,display,shown,tag",
    "trades": "ts_ns,maker,taker,price,qty",
    "checkpoints": "after_cmd,ts_ns,bid,bid_qty,ask,ask_qty,n_bids,n_asks,open_bid_qty,open_ask_qty",
}


@dataclass
class Resting:
    order: int
    side: str
    price: int
    quantity: int
    post_only: bool


class PlainBook:
    """One list in time order; every question walks through all of it."""

    def __init__(self) -> None:
        self.resting: list[Resting] = []

    def opposite(self, side: str, price: int) -> list[Resting]:
        """Return what an order could trade with, in price-time priority."""
        if side == "B":
            found = [other for other in self.resting if other.side == "S" and other.price <= price]
            return sorted(found, key=lambda other: other.price)
        found = [other for other in self.resting if other.side == "B" and other.price >= price]
        return sorted(found, key=lambda other: -other.price)

    def submit(self, order: int, side: str, price: int, quantity: int, tif: str) -> list[tuple[int, int, int]]:
        """Trade, then rest the remainder; return (maker, price, quantity) of each fill."""
        fills = []
        for maker in self.opposite(side, price):
            traded = min(quantity, maker.quantity)
            if traded == 0:
                break
            quantity -= traded
            maker.quantity -= traded
            fills.append((maker.order, maker.price, traded))
        self.resting = [other for other in self.resting if other.quantity]
        if tif != "IOC" and quantity:
            self.resting.append(Resting(order, side, price, quantity, tif == "PO"))
        return fills

    def remove(self, order: int) -> None:
        self.resting = [other for other in self.resting if other.order != order]

    def state(self) -> list[int]:
        row = []
        for side, best in (("B", max), ("S", min)):
            mine = [other for other in self.resting if other.side == side]
            price = best((other.price for other in mine), default=0)
            row += [price, sum(other.quantity for other in mine if other.price == price)]
        counts = [sum(other.side == side for other in self.resting) for side in "BS"]
        totals = [sum(other.quantity for other in self.resting if other.side == side) for side in "BS"]
        return row + counts + totals


def generate() -> dict[str, bytes]:
    """Return the files of the set, name to bytes; always the same."""
    rng = random.Random(SEED)
    book = PlainBook()
    rows: dict[str, list[list[object]]] = {name: [] for name in COLUMNS}
    refused = 0
    post_only_rejected: list[int] = []
    for index in range(COMMANDS):
        ts_ns = START_NS + index * STEP_NS
        kind = rng.choices(("GTC", "IOC", "PO", "cancel", "amend", "late"), (40, 8, 15, 22, 14, 1))[0]
        if not any(not other.post_only for other in book.resting) and kind in ("cancel", "amend"):
            kind = "GTC"
        if kind == "late" and not post_only_rejected:
            kind = "GTC"
        fills: list[tuple[int, int, int]] = []
        if kind == "cancel":
            target = rng.choice(book.resting)
            command = ["cancel", target.order, target.side, target.price, target.quantity, ""]
            book.remove(target.order)
        elif kind == "late":
            command = ["cancel", post_only_rejected.pop(), "B", 0, 0, ""]
        elif kind == "amend":
            command, fills = _amend(rng, book)
        else:
            order, side = 1_000_000 + index, rng.choice("BS")
            away = rng.randint(-3, DEPTH)
            price = MIDDLE + (away if side == "S" else -away)
            quantity = rng.randint(1, 1_000)
            command = ["new", order, side, price, quantity, kind]
            if kind == "PO" and book.opposite(side, price):
                refused += 1
                post_only_rejected.append(order)
            else:
                fills = book.submit(order, side, price, quantity, kind)
        rows["commands"].append([ts_ns, *command, 0, 0, ""])
        rows["trades"] += [[ts_ns, maker, command[1], price, quantity] for maker, price, quantity in fills]
        if (index + 1) % CHECKPOINT_EVERY == 0:
            rows["checkpoints"].append([index, ts_ns, *book.state()])
    meta = {"name": "flow_sample", "source": "tests/kit/flow_sample.py", "post_only_rejects": refused}
    files = {f"{name}.csv.gz": _zipped(COLUMNS[name], table) for name, table in rows.items()}
    return {**files, "meta.json": json.dumps(meta, indent=1).encode() + b"\n"}


def _amend(rng: random.Random, book: PlainBook) -> tuple[list[object], list[tuple[int, int, int]]]:
    # A post-only order amended to cross is refused, which the recorded format has no word for.
    target = rng.choice([other for other in book.resting if not other.post_only])
    if rng.random() < 0.5 and target.quantity > 1:
        # Same price, smaller: keeps its place.
        quantity = rng.randint(1, target.quantity - 1)
        command: list[object] = ["amend", target.order, target.side, target.price, quantity, "GTC"]
        target.quantity = quantity
        return command, []
    price = target.price + rng.choice((-8, -3, -1, 1, 3, 8))
    quantity = rng.randint(1, 1_000)
    book.remove(target.order)
    fills = book.submit(target.order, target.side, price, quantity, "GTC")
    return ["amend", target.order, target.side, price, quantity, "GTC"], fills


def _zipped(header: str, rows: list[list[object]]) -> bytes:
    text = io.StringIO(newline="")
    text.write(header + "\n")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return gzip.compress(text.getvalue().encode(), mtime=0)


if __name__ == "__main__":
    SAMPLE.mkdir(parents=True, exist_ok=True)
    for name, data in generate().items():
        (SAMPLE / name).write_bytes(data)
