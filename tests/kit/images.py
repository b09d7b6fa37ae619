"""Logs without a journal and in one, and replicas that are stored in memory and loaded again."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine import EngineConfig, Places, Replica, image_arena, image_head, image_loaded, image_runs
from engine.engine import START_NS
from journaler import append_missing
from tests.kit.composed_exchange import make_exchange
from tests.kit.journals import log_ring, opened, poll_all, publish
from tests.oracle.adapter import EngineTarget
from tests.oracle.compare import run_random
from tests.oracle.world import World

SLOT_SIZE = 128
FLAG_MORE = 1
FLAGS_OFFSET = 14


@dataclass(frozen=True)
class Log:
    config: EngineConfig
    slots: bytes

    @property
    def end(self) -> int:
        return len(self.slots) // SLOT_SIZE

    def between(self, first: int, end: int) -> bytes:
        return self.slots[first * SLOT_SIZE : end * SLOT_SIZE]

    def is_cut(self, sequence: int) -> bool:
        """Whether no linked group lies across `sequence`."""
        if sequence == 0:
            return True
        return not self.slots[(sequence - 1) * SLOT_SIZE + FLAGS_OFFSET] & FLAG_MORE


def random_log(seed: int, commands: int, *, partitions: int = 2, orders_max: int = 128) -> Log:
    """Return the log of random commands of every kind that the engine has taken, in agreement with the model."""
    world = World(
        partitions=partitions,
        orders_max=orders_max,
        entries_max=orders_max // 2,
        lists_max=orders_max // 4,
        quotes_max=orders_max // 8,
    )
    slots = bytearray()
    targets = []

    class Recorder(EngineTarget):
        def log(self) -> Any:
            batches = self.engine.log_records()
            slots.extend(b"".join(records for _, records in batches))
            self.engine.log_records = lambda: batches
            try:
                return super().log()
            finally:
                del self.engine.log_records

    def make(given: World) -> EngineTarget:
        targets.append(Recorder(given))
        return targets[0]

    result = run_random(seed, commands, world, make, bursts=True)
    assert result.difference is None, str(result.difference)
    return Log(targets[0].engine.config, bytes(slots))


def small_log(*, seconds: int = 6, orders: int = 40, partitions: int = 2) -> Log:
    """Return the log of two accounts that trade a pair: `orders` each second, and a hash mark at each second's end."""
    exchange = make_exchange(partitions=partitions, orders_per_partition=1024, balances_max=256)
    accounts = [exchange.account(base=1 << 30, quote=1 << 40) for _ in range(2)]
    slots = bytearray()
    for second in range(1, seconds + 1):
        for number in range(orders):
            trade = exchange.sell if number % 2 else exchange.buy
            trade(accounts[number % 3 % 2], 100 + number % 7 - number % 2, 1 + number % 5)
        for step in range(3):
            exchange.engine.set_time(START_NS + second * 1_100_000_000 + step * 20_000_000)
            exchange.engine.submit_slots(b"")
        slots += b"".join(records for _, records in exchange.engine.log_records())
    config = exchange.engine.config
    exchange.engine.close()
    return Log(config, bytes(slots))


def write_log(journal: Path, log: Log, *, start: int = 0, reports: bool = True) -> None:
    """Write a log from `start` on into a journal's folder, one batch a group, and its reports into the archive."""
    with log_ring(base=start) as ring, opened(journal, ring) as journaler:
        first = start
        for sequence in range(start + 1, log.end + 1):
            if log.is_cut(sequence):
                publish(ring, log.between(first, sequence))
                first = sequence
        poll_all(journaler, ring)
    if reports:
        replica = Replica(log.config)
        replica.open(Places(), {})
        replica.feed(0, log.slots, outputs=lambda partition, at, slots: append(journal, partition, at, slots))
        replica.close()


def append(journal: Path, partition: int, first: int, slots: bytes) -> None:
    append_missing(journal, partition, first, slots)


def replica_at(log: Log, sequence: int) -> Replica:
    """Return a replica that has followed the log from its beginning."""
    replica = Replica(log.config)
    replica.open(Places(), {})
    if sequence:
        replica.feed(0, log.between(0, sequence))
    return replica


@dataclass(frozen=True)
class Stored:
    """What a snapshot holds, in memory."""

    heads: list[bytes]
    runs: list[list[tuple[int, bytes]]]
    places: Places
    unsettled: dict[int, bytes]
    output_hash: bytes


def store(replica: Replica) -> Stored:
    owners = [replica.sequencer, *replica.matchers]
    return Stored(
        [image_head(owner) for owner in owners],
        [[(offset, bytes(view)) for offset, view in image_runs(owner)] for owner in owners],
        replica.places,
        replica.unsettled(),
        replica.output_hash,
    )


def restore(config: EngineConfig, stored: Stored) -> Replica:
    replica = Replica(config)
    for owner, head, runs in zip([replica.sequencer, *replica.matchers], stored.heads, stored.runs, strict=True):
        arena = image_arena(owner)
        for offset, data in runs:
            arena[offset : offset + len(data)] = data
        arena.release()
        image_loaded(owner, head)
    replica.open(stored.places, stored.unsettled, output_hash=int.from_bytes(stored.output_hash, "little"))
    return replica
