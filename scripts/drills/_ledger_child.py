"""A ledger to be killed: follows a finished journal into a store in small blocks; prints `open`, `block`s, `done`.

`python -m scripts.drills._ledger_child JOURNAL FOLDER PORT FAULT`: images are in FOLDER, and the embedded store; with a
port above 0 the store is the server there. FAULT "" = none. Every block is delivered twice.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from scripts.bench._clickhouse import local_config
from scripts.ledger.store import LateStore
from settlement.chdb_store import ChdbConfig, ChdbStore
from settlement.clickhouse_store import ClickhouseStore
from settlement.consumer import Consumer, ConsumerConfig
from settlement.derivation import Reports
from settlement.images import Images
from settlement.ledger import Delivery, Ledger, Owner
from settlement.source import Batch, FileSource
from settlement.store import Store

RECORDS = 64
IMAGE_RECORDS = 500
SLOT_SIZE = 128
MEMORY_BYTES = 1 << 30


class Pieces:
    """A log in small batches, so that there are many blocks to be killed in."""

    def __init__(self, journal: Path, start: int) -> None:
        self._source = FileSource(journal, start)
        self._rest: Batch | None = None

    def read(self) -> Batch | None:
        batch = self._rest or self._source.read()
        if batch is None:
            return None
        first, records = batch
        piece, rest = records[: RECORDS * SLOT_SIZE], records[RECORDS * SLOT_SIZE :]
        self._rest = (first + RECORDS, rest) if rest else None
        return first, piece

    def reports(self, wanted: Mapping[int, tuple[int, int]]) -> Reports:
        return self._source.reports(wanted)

    def close(self) -> None:
        self._source.close()


class Doubting(Ledger):
    """Delivers each block again, as one who did not hear that it was stored. A fault can be planted."""

    fault = ""

    def append(self, delivery: Delivery) -> None:
        if self.fault == "lost":
            postings = {name: column[:-1] for name, column in delivery.block.postings.items()}
            delivery = replace(delivery, block=replace(delivery.block, postings=postings))
        super().append(delivery)
        super().append(delivery)


def log_end(journal: Path) -> int:
    source, end = FileSource(journal), 0
    while (batch := source.read()) is not None:
        end = batch[0] + len(batch[1]) // SLOT_SIZE
    source.close()
    return end


def open_store(folder: Path, port: int) -> Store:
    if port:
        return ClickhouseStore(local_config(port, timeout_s=30))
    return ChdbStore(ChdbConfig(directory=folder / "store", memory_bytes=MEMORY_BYTES))


def main(journal: Path, folder: Path, port: int, fault: str) -> None:
    store = LateStore(lambda: open_store(folder, port), str(folder))
    ended = threading.Event()
    config = ConsumerConfig(block_rows=1, flush_ms=1, retry_ms=10, insurance_account=0, image_records=IMAGE_RECORDS)
    ledger = Doubting(store, Owner(time.time_ns(), "drill", 1), time.time_ns)
    ledger.fault = fault
    images = Images(folder / "images")
    consumer = Consumer(
        lambda start: Pieces(journal, start), ledger, config, clock_ns=time.time_ns, wait=ended.wait, images=images
    )
    print("open", flush=True)
    end, blocks = log_end(journal), 0
    while consumer.status.stored < end:
        if not consumer.step():
            time.sleep(0.001)
        status = consumer.status
        if status.state == "halted":
            raise SystemExit(status.trouble)
        if status.derived == end:
            consumer.flush()
        for _ in range(blocks, status.blocks):
            print("block", flush=True)
        blocks = status.blocks
    consumer.stop()
    store.close()
    print("done", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
