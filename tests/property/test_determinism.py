"""One log, one state: a run in Python, its replay in Python and C replays at every optimization level are bit-equal.

The C replays are `tests/native/engine_replay.c` and the engine's sources compiled here, several ways, side by side.
"""

import json
import random
import shutil
import subprocess
import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from engine import ComposedEngine
from ringbuf.wire import messages as wire
from tests.kit.composed_exchange import BASE, PAIR, QUOTE, Exchange, make_exchange

ROOT = Path(__file__).resolve().parents[2]
SLOT_SIZE = 128
COMMANDS = 1500
REPORT_SLOTS = 1 << 12
TICK_NS = 11_000_000
CAPACITIES: dict[str, Any] = {"partitions": 2, "orders_per_partition": 256, "accounts_max": 32, "instruments_max": 4}
VARIANTS = {
    "O0": ["-O0"],
    "O2": ["-O2"],
    "O3": ["-O3"],
    "sanitized": ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
}


@dataclass
class Recording:
    """What a run wrote, and what `engine_replay` must print about it."""

    log: bytearray = field(default_factory=bytearray)
    reports: list[bytearray] = field(default_factory=list)
    outcome: dict[str, Any] = field(default_factory=dict)


def outcome_of(engine: ComposedEngine, reports: list[bytearray]) -> dict[str, Any]:
    """Return the state of an engine at rest in the words of `engine_replay`."""
    books = {}
    for matcher in engine.matchers:
        for instrument in range(1, engine.config.instruments_max + 1):
            digest = matcher.book_hash(instrument) if matcher.has_book(instrument) else bytes(16)
            if any(digest):
                books[str(instrument)] = digest[::-1].hex()
    return {
        "position": engine.sequencer.position,
        "sequencer": engine.sequencer.state_hash()[::-1].hex(),
        "books": books,
        "reports": [[len(tape) // SLOT_SIZE, zlib.crc32(tape)] for tape in reports],
    }


def take(engine: ComposedEngine, recording: Recording) -> None:
    """Append what is new in the rings, before it is overwritten."""
    for _, records in engine.log_records():
        recording.log += records
    for tape, ring in zip(recording.reports, engine.reports, strict=True):
        first = len(tape) // SLOT_SIZE
        if ring.published > first:
            tape += ring.read(first, ring.published - first)


def rest(engine: ComposedEngine, now_ns: int) -> None:
    """Let the clock go on until the log says everything: reports settled but not yet marked are not in it."""
    for step in range(1, 10):
        engine.set_time(now_ns + step * TICK_NS)
        engine.submit_slots(b"")
        if all(engine.sequencer.settled(m.partition) == engine.reports[m.partition].published for m in engine.matchers):
            return
    raise AssertionError("the marks never caught up with the reports")


def act(exchange: Exchange, chance: random.Random, open_orders: list[tuple[int, int]]) -> None:
    """Submit one random command: an order of some kind, a cancel, a replace, a mass cancel, a deposit."""
    account = chance.choice(list(exchange.sessions))
    kind = chance.randrange(100)
    price = chance.randrange(95, 106)
    if kind < 60 or not open_orders:
        terms: dict[str, Any] = {"stp_mode": chance.choice(list(wire.StpMode))}
        if kind % 5 == 0:
            terms["time_in_force"] = chance.choice([wire.TimeInForce.IOC, wire.TimeInForce.FOK])
        if kind % 7 == 3:
            terms = {"exec_inst": wire.ExecInst.POST_ONLY}
        side = chance.choice([wire.Side.BUY, wire.Side.SELL])
        outputs = exchange.order(account, side, price, chance.randrange(1, 20), **terms)
        open_orders += [
            (account, out.message.order_id) for out in outputs if isinstance(out.message, wire.OrderAccepted)
        ]
        return
    owner, order_id = open_orders.pop(chance.randrange(len(open_orders)))
    if kind < 75:
        exchange.cancel(owner, order_id)
    elif kind < 97:
        exchange.replace(owner, order_id, price=price, order_qty=chance.randrange(1, 30))
        open_orders.append((owner, order_id))
    elif kind < 98:
        request = wire.MassCancelRequest(cl_ord_id=1, instrument_id=PAIR, scope=wire.MassCancelScope.ACCOUNT)
        exchange.engine.submit(exchange.sessions[owner], request)
    else:
        amount = chance.randrange(1, 500)
        exchange.admin(
            wire.BalanceAdjust(amount=amount, account_id=owner, asset_id=BASE, kind=wire.BalanceKind.DEPOSIT)
        )


@pytest.fixture(scope="module")
def recording() -> Recording:
    """A random run on the composed engine."""
    chance = random.Random(20)
    exchange = make_exchange(maker_rate=-20, taker_rate=150, **CAPACITIES)
    engine = exchange.engine
    recorded = Recording(reports=[bytearray() for _ in engine.reports])
    for index in range(6):
        exchange.account(base=2_000, quote=150_000, stp_group=index % 3, fee_tier=0)
    now_ns = 1_700_000_000_000_000_000
    open_orders: list[tuple[int, int]] = []
    for step in range(COMMANDS):
        now_ns += 1_200_000_000 if step % 400 == 399 else chance.randrange(2_000_000)
        engine.set_time(now_ns)
        act(exchange, chance, open_orders)
        take(engine, recorded)
    rest(engine, now_ns)
    take(engine, recorded)
    engine.check()
    assert engine.balance(1, QUOTE) != (150_000, 0)
    recorded.outcome = outcome_of(engine, recorded.reports)
    return recorded


@pytest.fixture(scope="session")
def replayers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Compile `engine_replay` every way, all at once; one folder a session."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("no gcc: the C replays are not built")
    folder = tmp_path_factory.mktemp("replay")
    sources = [ROOT / "tests/native/engine_replay.c", *sorted((ROOT / "engine").glob("*.c"))]
    common = ["-std=gnu11", "-D_GNU_SOURCE", f"-I{ROOT}", f"-I{ROOT / 'ringbuf/include'}"]
    started = {
        name: subprocess.Popen(
            [compiler, *common, *flags, *map(str, sources), "-o", str(folder / name)],
            stderr=subprocess.PIPE,
            text=True,
        )
        for name, flags in VARIANTS.items()
    }
    for name, process in started.items():
        _, errors = process.communicate()
        assert process.returncode == 0, f"{name}: {errors}"
    return {name: folder / name for name in VARIANTS}


def replay_in_c(program: Path, log: bytes, folder: Path, *, chunk: int = 4096) -> dict[str, Any]:
    """Return what `engine_replay` says of a log."""
    path = folder / "log"
    path.write_bytes(log)
    done = subprocess.run([program, path, str(REPORT_SLOTS), str(chunk)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    outcome: dict[str, Any] = json.loads(done.stdout)
    return outcome


def test_the_run_was_worth_replaying(recording: Recording) -> None:
    templates = {
        int.from_bytes(tape[at + 4 : at + 6], "little")
        for tape in recording.reports
        for at in range(0, len(tape), SLOT_SIZE)
    }
    wanted = {
        wire.OrderAccepted,
        wire.OrderExecuted,
        wire.OrderCanceled,
        wire.OrderReplaced,
        wire.CancelReplaceReject,
        wire.MassCancelReport,
        wire.OrderRejected,
        wire.BookHash,
    }
    assert [message.__name__ for message in wanted if message.TEMPLATE_ID not in templates] == []
    assert recording.outcome["books"]


@pytest.mark.parametrize("batch", [1, 7, 1000, 1 << 20])
def test_a_python_replay_agrees(recording: Recording, batch: int) -> None:
    engine = make_exchange(**CAPACITIES).engine
    again = ComposedEngine(engine.config)
    replayed = Recording(reports=[bytearray() for _ in again.reports])
    for first in range(0, len(recording.log) // SLOT_SIZE, batch):
        again.replay([(first, bytes(recording.log[first * SLOT_SIZE : (first + batch) * SLOT_SIZE]))])
        take(again, replayed)
    assert replayed.reports == recording.reports
    assert outcome_of(again, replayed.reports) == recording.outcome


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_c_replay_agrees(recording: Recording, replayers: dict[str, Path], variant: str, tmp_path: Path) -> None:
    assert replay_in_c(replayers[variant], bytes(recording.log), tmp_path) == recording.outcome
    assert replay_in_c(replayers[variant], bytes(recording.log), tmp_path, chunk=3) == recording.outcome


def test_a_changed_log_does_not_agree(recording: Recording, replayers: dict[str, Path], tmp_path: Path) -> None:
    """The planted fault: one bit of the client tag of the last order that a matcher took."""
    accepted = max(
        int.from_bytes(tape[at + 24 : at + 32], "little")
        for tape in recording.reports
        for at in range(0, len(tape), SLOT_SIZE)
        if int.from_bytes(tape[at + 4 : at + 6], "little") == wire.OrderAccepted.TEMPLATE_ID
    )
    slot = bytes(recording.log[accepted * SLOT_SIZE : (accepted + 1) * SLOT_SIZE])
    order = wire.NewOrderSingle.unpack(slot, 32)
    changed = bytearray(recording.log)
    block = replace(order, client_tag=order.client_tag ^ 1).pack()
    changed[accepted * SLOT_SIZE + 32 : accepted * SLOT_SIZE + 32 + len(block)] = block
    assert sum(a != b for a, b in zip(changed, recording.log, strict=True)) == 1
    assert replay_in_c(replayers["O2"], bytes(changed), tmp_path) != recording.outcome
