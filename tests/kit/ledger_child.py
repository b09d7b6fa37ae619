"""A consumer to be killed: `python -m tests.kit.ledger_child JOURNAL STORE`; prints `open`, `block`s, `done`."""

import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from settlement.chdb_store import ChdbConfig, ChdbStore
from settlement.consumer import Consumer, ConsumerConfig
from settlement.derivation import Reports
from settlement.images import Images
from settlement.ledger import Ledger, Owner
from settlement.source import Batch, FileSource

RECORDS = 64
IMAGE_RECORDS = 500
SLOT_SIZE = 128


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


def log_end(journal: Path) -> int:
    source, end = FileSource(journal), 0
    while (batch := source.read()) is not None:
        end = batch[0] + len(batch[1]) // SLOT_SIZE
    return end


def main(journal: Path, directory: Path) -> None:
    store = ChdbStore(ChdbConfig(directory=directory, memory_bytes=1 << 30, threads=1))
    ended = threading.Event()
    config = ConsumerConfig(block_rows=1, flush_ms=1, retry_ms=10, insurance_account=0, image_records=IMAGE_RECORDS)
    images = Images(directory.with_name(f"{directory.name}-images"))
    ledger = Ledger(store, Owner(time.time_ns(), "child", 1), time.time_ns)
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
    main(Path(sys.argv[1]), Path(sys.argv[2]))
