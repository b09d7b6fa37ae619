"""From the log into the books: reads records, derives postings, hands blocks to the store; never in anybody's way.

Two threads: the one that calls `step` reads and derives, a writer appends. At most one block waits for the writer, so
memory is bounded, and while the store is slow or away the consumer simply stands still: it is an observer of the log
and goes on from the files whenever it can. What is in the store is never asked for again: the position comes from
there, and the state before it is derived anew, from an image of some blocks ago or from record 0.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from settlement.definitions import Definitions, record_fields
from settlement.derivation import SLOT_SIZE, Block, Counts, Derivation
from settlement.errors import (
    BooksDiffer,
    DerivationHalted,
    LogTrimmed,
    SettlementError,
    SourceNotReady,
    StoreError,
    StoreUnavailable,
)
from settlement.images import Image, Images
from settlement.ledger import DAY_NS, Close, Delivery, Ledger
from settlement.source import Batch, Source

QUEUE_POLL_S = 0.1
AHEAD_MAX_NS = 2_000_000_000
# So far behind that what counts is to catch up: blocks are larger, and the store's merges wait.
BEHIND_NS = 5_000_000_000
BEHIND_BLOCKS = 4
IDLE_S = 1.0


@dataclass(frozen=True, kw_only=True)
class ConsumerConfig:
    """When a block is full, how long rows may wait for one, how long a store that fails is left alone, how many records
    lie between images of the derivation."""

    block_rows: int
    flush_ms: int
    retry_ms: int
    insurance_account: int
    image_records: int

    def __post_init__(self) -> None:
        for name, low, high in (
            ("block_rows", 1, 10_000_000),
            ("flush_ms", 1, 60_000),
            ("retry_ms", 1, 600_000),
            ("insurance_account", 0, 2**32 - 1),
            ("image_records", 1, 10**12),
        ):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} = {getattr(self, name)}: must be {low}..{high}")


@dataclass(frozen=True, slots=True)
class Status:
    """How far it is, and what keeps it."""

    began: int = 0  # the first record that was read: 0, or where an image goes on
    derived: int = 0  # records
    stored: int = 0  # records
    blocks: int = 0
    retries: int = 0
    state: str = "starting"  # starting, replaying, running, waiting, halted
    trouble: str = ""  # a sentence, empty when all is well
    unbooked: str = ""  # why a record cannot be booked: ledger and exchange have parted there


class Consumer:
    """Follows a source into a ledger. Call `step` again and again; `stop` at the end."""

    def __init__(
        self,
        source: Callable[[int], Source],
        ledger: Ledger,
        config: ConsumerConfig,
        *,
        clock_ns: Callable[[], int],
        wait: Callable[[float], bool],
        images: Images,
        on_image: Callable[[int], None] = lambda needed_from: None,
    ) -> None:
        """`source` makes one that begins at a record; `wait` sleeps for seconds, cut short and True when all ends.

        `on_image` is told the first record that a start may still need whenever another image is kept, by the writer.
        """
        self._make_source = source
        self._source: Source | None = None
        self._config = config
        self._clock_ns = clock_ns
        self._wait = wait
        self._derivation = Derivation(insurance_account=config.insurance_account)
        self._definitions = Definitions()
        self._images = images
        self._on_image = on_image
        self._imaged = 0  # the last image's position
        self._writer = Writer(ledger, config, clock_ns=clock_ns, wait=wait, stored=self._stored)
        self._pending: Batch | None = None
        self._last_record = b""
        self._last_ts_ns = 0
        self._behind_since_ns = 0
        self._oldest_ns = 0  # when the first row of the block was derived, 0 = no rows
        self._status = Status()

    @property
    def status(self) -> Status:
        writer = self._writer
        trouble = writer.trouble or self._status.trouble
        return replace(
            self._status,
            derived=self._derivation.position,
            stored=writer.stored,
            blocks=writer.blocks,
            retries=writer.retries,
            trouble=trouble,
        )

    @property
    def opened(self) -> bool:
        """Whether the store's tables are there and ours. From any thread."""
        return self._writer.ready

    def busy_ns(self) -> int:
        """Return how long the store has been at one call of the writer or of `step`; 0 = at none. From any thread."""
        return self._writer.busy_ns()

    @property
    def counts(self) -> Counts:
        return self._derivation.counts()

    @property
    def derivation(self) -> Derivation:
        """The books in memory, for who compares them; use it from the thread that calls `step`."""
        return self._derivation

    def step(self) -> bool:
        """Do a piece of work; False when there was none. Trouble is told by `status`; what is raised is a fault."""
        if self._status.state == "halted":
            return False
        try:
            return self._step()
        except SourceNotReady as error:
            self._status = replace(self._status, trouble=str(error))
        except DerivationHalted as error:
            # What came before the record is good, and is stored.
            self.flush()
            stopped = f"the ledger has stopped: {error}"
            self._status = replace(self._status, state="halted", trouble=stopped, unbooked=stopped)
        except (BooksDiffer, LogTrimmed) as error:
            self._status = replace(self._status, state="halted", trouble=str(error))
        return False

    def flush(self) -> None:
        """Hand over what is derived, and wait until it is stored or cannot be for now."""
        if self._writer.drain():
            self._submit()
            self._writer.drain()

    def stop(self) -> None:
        """End the writer; what is not stored is derived again next time."""
        self._writer.stop()
        if self._source is not None:
            self._source.close()

    # --- inside -----------------------------------------------------------------------------------------------------

    def _stored(self, delivery: Delivery) -> None:
        self._derivation.give_back(delivery.block)
        if delivery.image is None:
            return
        try:
            self._images.store(delivery.image)
            self._on_image(self._images.needed_from)
        except OSError:
            # The next one may work. Until then a start takes longer, and the log keeps what that needs.
            return

    def _step(self) -> bool:
        if self._writer.fault is not None:
            raise self._writer.fault
        if not self._writer.ready:
            # Only the writer talks to the store. Until it has opened the books nobody knows where to go on.
            self._wait(QUEUE_POLL_S)
            return False
        if self._source is None:
            self._take_up_image()
            self._source = self._make_source(self._derivation.position)
            state = "replaying" if self._writer.stored else "running"
            self._status = replace(self._status, state=state, began=self._derivation.position)
        if self._derivation.rows >= self._block_rows and not self._writer.room:
            return False
        batch = self._pending = self._pending or self._source.read()
        if batch is None:
            self._check_end()
            return self._flush_if_due(more=False)
        if self._begins_a_day(batch):
            if not self._writer.room:
                return False
            self._close_day()
        self._take(self._source, *self._head(batch))
        if self._status.trouble:
            self._status = replace(self._status, trouble="")
        self._flush_if_due()
        return True

    def _take_up_image(self) -> None:
        """Go on from the newest image of these books, instead of from record 0.

        One that is as new as the books is not it: the record the books end with is to be compared with the log's.
        """
        for position in reversed(self._images.positions()):
            image = self._images.load(position) if position < self._writer.first else None
            derivation = None if image is None else Derivation.from_image(image.state)
            if image is None or derivation is None or derivation.position != position:
                continue
            if derivation.insurance_account != self._config.insurance_account:
                continue
            if self._writer.has_block_end(position, image.last_record):
                self._derivation = derivation
                self._definitions.restore(image.owners)
                self._last_record, self._last_ts_ns = image.last_record, derivation.last_ts_ns
                self._imaged = position
                self._writer.check_identity(derivation.cluster, self._config.insurance_account)
                return

    def _check_end(self) -> None:
        """The log has ended for now: the books must not be ahead of it."""
        if self._derivation.position >= self._writer.first:
            self._behind_since_ns = 0
            return
        now = self._clock_ns()
        self._behind_since_ns = self._behind_since_ns or now
        if now - self._behind_since_ns > AHEAD_MAX_NS:
            raise BooksDiffer(
                f"the books end at record {self._writer.first}, the log at {self._derivation.position}: the log has "
                "lost records, or is another one; rebuild the books"
            )

    def _head(self, batch: Batch) -> tuple[Batch, Batch | None]:
        """Cut the batch where the books go on and where a day ends: records of one side only are taken at once."""
        first, records = batch
        count = len(records) // SLOT_SIZE
        cut = count
        if first < self._writer.first < first + count:
            cut = self._writer.first - first
        times = record_fields(records)["ts_ns"]
        midnight = (int(times[0]) // DAY_NS + 1) * DAY_NS
        cut = min(cut, int(np.searchsorted(times, midnight)))
        if cut == count:
            return batch, None
        return (first, records[: cut * SLOT_SIZE]), (first + cut, records[cut * SLOT_SIZE :])

    def _take(self, source: Source, head: Batch, rest: Batch | None) -> None:
        first, records = head
        derivation = self._derivation
        reports = source.reports(derivation.wanted(records))
        try:
            derivation.feed(first, records, reports)
        finally:
            taken = derivation.position - first
            if taken:
                self._definitions.feed(first, records[: taken * SLOT_SIZE])
                self._last_record = records[(taken - 1) * SLOT_SIZE : taken * SLOT_SIZE]
                self._last_ts_ns = int(record_fields(self._last_record)["ts_ns"][0])
        self._pending = rest
        if first == 0:
            self._writer.check_identity(derivation.cluster, self._config.insurance_account)
        if derivation.position <= self._writer.first:
            self._skip()

    def _skip(self) -> None:
        """What the store has already is derived for the state alone."""
        self._derivation.drop()
        self._definitions.take()
        if self._derivation.position == self._writer.first:
            self._writer.check_last_record(self._last_record)
            self._status = replace(self._status, state="running")

    @property
    def _behind(self) -> bool:
        return self._clock_ns() - self._derivation.last_ts_ns > BEHIND_NS

    @property
    def _block_rows(self) -> int:
        return self._config.block_rows * (BEHIND_BLOCKS if self._behind else 1)

    def _flush_if_due(self, *, more: bool = True) -> bool:
        rows = self._derivation.rows
        if rows == 0:
            self._oldest_ns = 0
            return False
        now = self._clock_ns()
        self._oldest_ns = self._oldest_ns or now
        if not self._writer.room:
            return False
        old = now - self._oldest_ns >= self._config.flush_ms * 1_000_000
        if rows >= self._block_rows or (old and not (more and self._behind)):
            self._submit(behind=more and self._behind)
            return True
        return False

    def _begins_a_day(self, batch: Batch) -> bool:
        first_ts_ns = int(record_fields(batch[1][:SLOT_SIZE])["ts_ns"][0])
        return self._last_ts_ns > 0 and first_ts_ns // DAY_NS > self._last_ts_ns // DAY_NS

    def _close_day(self) -> None:
        """The next record is of another day: what the books are now is the last one's close."""
        day, position = self._last_ts_ns // DAY_NS, self._derivation.position
        self._last_ts_ns = 0
        if position >= self._writer.first:
            self._submit(Close(day, position - 1, self._derivation.balances()))

    def _submit(self, close: Close | None = None, *, behind: bool = False) -> None:
        """Give the block to the writer, which has room for it."""
        if self._derivation.position <= self._writer.first and close is None:
            return
        self._oldest_ns = 0
        block: Block = self._derivation.take()
        image = None
        if block.end - self._imaged >= self._config.image_records:
            self._imaged = block.end
            image = Image.of(self._derivation, self._definitions, self._last_record)
        self._writer.put(Delivery(block, self._last_record, self._definitions.take(), close, image, behind))


class Writer:
    """Appends blocks in a thread of its own, again and again until the store takes them."""

    def __init__(
        self,
        ledger: Ledger,
        config: ConsumerConfig,
        *,
        clock_ns: Callable[[], int],
        wait: Callable[[float], bool],
        stored: Callable[[Delivery], None],
    ) -> None:
        """`stored` is given each delivery once it is, in the writer's thread."""
        self._ledger = ledger
        self._stored = stored
        self._config = config
        self._clock_ns = clock_ns
        self._wait = wait
        self._began: dict[int, int] = {}  # thread -> when it went into the store
        self._queue: queue.Queue[Delivery | None] = queue.Queue(maxsize=1)
        self._idle = threading.Event()
        self._stopping = False
        self.ready = False  # the books are open
        self.first = 0  # where the books ended when they were opened
        self.stored = 0
        self.blocks = 0
        self.retries = 0
        self.trouble = ""
        self.fault: Exception | None = None  # what ended the thread and should not have
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)
        self._thread.start()

    @property
    def room(self) -> bool:
        """Another block can be put."""
        return not self._queue.full()

    def put(self, delivery: Delivery) -> None:
        """Queue a block; there is room, since nobody else puts any."""
        self._idle.clear()
        self._queue.put_nowait(delivery)

    def busy_ns(self) -> int:
        began = min(list(self._began.values()), default=0)
        return self._clock_ns() - began if began else 0

    def drain(self) -> bool:
        """Wait until everything queued is stored; False if the store is in trouble."""
        while not self._idle.wait(QUEUE_POLL_S):
            if self.trouble or not self._thread.is_alive():
                return False
        return True

    def stop(self) -> None:
        """End the thread; a store that answers finishes the block at hand."""
        self._stopping = True
        with contextlib.suppress(queue.Full):
            # Wakes it, so that it sees the end.
            self._queue.put_nowait(None)
        self._thread.join()

    def check_identity(self, cluster: int, insurance_account: int) -> None:
        self._insist(lambda: self._ledger.check_identity(cluster, insurance_account))

    def check_last_record(self, record: bytes) -> None:
        self._insist(lambda: self._ledger.check_last_record(record))

    def has_block_end(self, position: int, record: bytes) -> bool:
        found: list[bool] = []
        self._insist(lambda: found.append(self._ledger.has_block_end(position, record)))
        return found == [True]

    def _run(self) -> None:
        try:
            self._serve()
        except Exception as error:
            self.fault = error

    def _serve(self) -> None:
        if not self._insist(self._open):
            return
        self.first = self.stored = self._ledger.position
        self.ready = True
        self._idle.set()
        while not self._stopping:
            try:
                delivery = self._queue.get(timeout=IDLE_S)
            except queue.Empty:
                if not self._insist(lambda: self._ledger.hold_merges(held=False)):
                    return
                continue
            if delivery is None or not self._insist(partial(self._append, delivery)):
                return
            self.stored = self._ledger.position
            self.blocks += 1
            self._stored(delivery)
            if self._queue.empty():
                self._idle.set()

    def _open(self) -> None:
        self._ledger.open()

    def _append(self, delivery: Delivery) -> None:
        if self.trouble:
            # The last try may have left half a block.
            self._ledger.open()
        self._ledger.append(delivery)

    def _insist(self, action: Callable[[], None]) -> bool:
        """Do it until it works; False when asked to end before. A BooksDiffer is for the caller."""
        while True:
            self._began[threading.get_ident()] = self._clock_ns()
            try:
                action()
            except StoreUnavailable as error:
                self.trouble = f"the store does not answer: {error}"
            except StoreError as error:
                self.trouble = f"the store refuses: {error}"
            except BooksDiffer:
                raise
            except SettlementError as error:
                self.trouble = str(error)
            else:
                self.trouble = ""
                return True
            finally:
                del self._began[threading.get_ident()]
            self.retries += 1
            if self._stopping or self._wait(self._config.retry_ms / 1000) or self._stopping:
                return False
