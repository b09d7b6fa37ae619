"""Making lost market data again: a private engine replays the journal, what the archive lacks is written into it.

`python -m scripts.market_repair RUN_DIR` is what the feed's process runs; `bullring feed repair` does the same.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from engine import EngineConfig, EngineError, Matcher, Sequencer, feed_composed
from journaler import ArchiveDiverged, JournalError, LogReader, append_missing_market
from ringbuf import Lapped, Ring
from scripts.exit_codes import CommandError, ExitCode
from scripts.node import MARKET_SLOT_SIZE, SLOT_SIZE, Node

BATCH_SLOTS = 256
RING_SLOTS = 1 << 16
MARKET_SLOTS = 1 << 20  # more than the records of one batch make
INGRESS_SLOTS = 1 << 10


def repair(directory: Path, engine: EngineConfig) -> int:
    """Replay the journal of `directory` to its end; return how many market slots were missing in its archive.

    Raises CommandError if the archive holds other bytes, or the journal does not begin at its beginning.
    """
    written = 0
    with ExitStack() as stack:
        sequencer, matchers, markets = _private_engine(stack, engine)
        seen = dict.fromkeys(markets, 0)
        try:
            for batch in LogReader(directory).batches(0, slots_max=BATCH_SLOTS):
                feed_composed(sequencer, matchers, [batch])
                for partition, ring in markets.items():
                    count = ring.published - seen[partition]
                    if count:
                        slots = ring.read(seen[partition], count)
                        written += append_missing_market(directory, partition, seen[partition], slots)
                        seen[partition] += count
        except (EngineError, JournalError, ArchiveDiverged, Lapped) as error:
            raise CommandError(f"market data cannot be made again: {error}", ExitCode.IO_ERROR) from error
    return written


def _private_engine(stack: ExitStack, config: EngineConfig) -> tuple[Sequencer, list[Matcher], dict[int, Ring]]:
    def ring(slot_size: int, slots: int) -> Ring:
        return stack.enter_context(Ring.private(slot_size=slot_size, slot_count=slots))

    log = ring(SLOT_SIZE, RING_SLOTS)
    reports = {partition: ring(SLOT_SIZE, RING_SLOTS) for partition in range(config.partitions + 1)}
    markets = {partition: ring(MARKET_SLOT_SIZE, MARKET_SLOTS) for partition in range(1, config.partitions + 1)}
    sequencer = Sequencer(config)
    sequencer.attach(
        log=log,
        report0=reports[0],
        reply=ring(SLOT_SIZE, RING_SLOTS),
        reports={partition: each for partition, each in reports.items() if partition},
        ingress={1: ring(SLOT_SIZE, INGRESS_SLOTS)},
    )
    matchers = []
    for partition, market in markets.items():
        matcher = Matcher(config, partition)
        matcher.attach(log=log, reports=reports[partition], market=market)
        matchers.append(matcher)
    return sequencer, matchers, markets


def main(arguments: Sequence[str]) -> int:
    node = Node.load(Path(arguments[0]))
    try:
        written = repair(node.config.journal_dir, node.engine)
    except CommandError as error:
        print(f"market_repair: {error}", file=sys.stderr, flush=True)
        return error.code
    print(f"market_repair: {written} slots were missing and are there again", file=sys.stderr, flush=True)
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
