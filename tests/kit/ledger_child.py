"""A consumer to be killed: `python -m tests.kit.ledger_child JOURNAL STORE [ROWS]`; prints `open` and then `done`."""

import sys
import threading
import time
from pathlib import Path

from settlement.chdb_store import ChdbConfig, ChdbStore
from settlement.consumer import Consumer, ConsumerConfig
from settlement.ledger import Ledger, Owner
from settlement.source import FileSource


def main(journal: Path, directory: Path, block_rows: int) -> None:
    store = ChdbStore(ChdbConfig(directory=directory, memory_bytes=1 << 30, threads=2))
    ended = threading.Event()
    config = ConsumerConfig(block_rows=block_rows, flush_ms=1, retry_ms=10, insurance_account=0)
    ledger = Ledger(store, Owner(time.time_ns(), "child", 1), time.time_ns)
    consumer = Consumer(lambda: FileSource(journal), ledger, config, clock_ns=time.time_ns, wait=ended.wait)
    print("open", flush=True)
    reader = FileSource(journal)
    end = 0
    while (batch := reader.read()) is not None:
        end = batch[0] + len(batch[1]) // 128
    while consumer.status.stored < end:
        if not consumer.step():
            time.sleep(0.001)
        if consumer.status.state == "halted":
            raise SystemExit(consumer.status.trouble)
        if consumer.status.derived == end:
            consumer.flush()
    consumer.stop()
    store.close()
    print("done", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
