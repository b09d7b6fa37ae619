"""Sequencer and matchers composed in one process: tests, replay, recovery and tools use the very C core that trades.

No journal and no clock of its own: `ComposedEngine` lives on private rings (mode D0); time comes from `set_time`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from engine._engine import ffi, lib
from engine.config import EngineConfig
from engine.errors import ReplayError, StageFailed
from engine.matcher import Matcher
from engine.sequencer import Sequencer
from ringbuf import Ring
from ringbuf.wire import market_messages, messages

SLOT_SIZE = 128
MARKET_SLOT_SIZE = 64
SOURCE_ADMIN = 1
SESSION_ADMIN = 1
ACCOUNT_VENUE = 0  # collects fees, pays rebates
ACCOUNT_DUST = 0xFFFFFFFE  # collects what only rounding made of fees
START_NS = 1_700_000_000_000_000_000
_RING_SLOTS = 1 << 14

BookSide = list[tuple[int, int, int]]  # (order id, price, leaves), best first


@dataclass(frozen=True, slots=True)
class Output:
    """One report as it stands in its ring."""

    partition: int
    report_seq: int
    session: int
    seq_num: int
    flags: int
    in_seq: int
    message: Any


@dataclass(frozen=True, slots=True)
class MarketEvent:
    """One market-data slot."""

    partition: int
    sequence: int
    update_id: int
    message: Any


def decode_report(slot: bytes) -> tuple[int, int, int, int, Any]:
    """Return (session, seq_num, flags, in_seq, message) of a report slot."""
    session = int.from_bytes(slot[0:4], "little")
    template = int.from_bytes(slot[4:6], "little")
    flags = int.from_bytes(slot[12:14], "little")
    seq_num = int.from_bytes(slot[16:20], "little")
    in_seq = int.from_bytes(slot[24:32], "little")
    return session, seq_num, flags, in_seq, messages.MESSAGES[template].unpack(slot, 32)


def encode_command(message: Any, *, session: int, seq_num: int, flags: int = 0, ingress_ns: int = 0) -> bytes:
    """Return the 128-byte ingress slot of a message."""
    slot = bytearray(SLOT_SIZE)
    slot[0:4] = session.to_bytes(4, "little")
    slot[6:8] = int(message.TEMPLATE_ID).to_bytes(2, "little")
    slot[14:16] = flags.to_bytes(2, "little")
    slot[16:24] = seq_num.to_bytes(8, "little")
    slot[24:32] = ingress_ns.to_bytes(8, "little")
    block = message.pack()
    slot[32 : 32 + len(block)] = block
    return bytes(slot)


def composed_hash(sequencer: Sequencer, matchers: Iterable[Matcher]) -> bytes:
    """Return 16 bytes over the sequencer and all books of the matchers."""
    total = int.from_bytes(sequencer.state_hash(), "little")
    for matcher in matchers:
        total += sum(value * (2 * number + 1) for number, value in matcher.book_hashes().items())
    return (total % (1 << 128)).to_bytes(16, "little")


def feed_composed(
    sequencer: Sequencer, matchers: list[Matcher], batches: Iterable[tuple[int, bytes | memoryview]]
) -> int:
    """Replay `(first_sequence, n x 128 bytes)` batches into sequencer and matchers; return the next sequence.

    Raises ReplayError when the log does not fit the configuration or the state differs from a hash mark.
    """
    array = ffi.new("matcher_t *[]", [matcher.ptr for matcher in matchers])
    pending = bytearray()
    first = sequencer.position
    for start, records in batches:
        expected = first + len(pending) // SLOT_SIZE
        if start != expected:
            raise ReplayError(f"record {expected} is missing: the next batch begins at {start}")
        pending += records
        buffer = ffi.from_buffer("log_slot_t[]", pending)
        done = lib.composed_feed(sequencer.ptr, array, len(matchers), buffer, first, len(pending) // SLOT_SIZE)
        ffi.release(buffer)
        if done < 0:
            raise ReplayError(sequencer.error or "a matcher refused a record")
        del pending[: done * SLOT_SIZE]
        first += done
    if pending:
        raise ReplayError(
            f"replay stands still at record {first}: the report rings are too small for what was in flight"
        )
    return first


def scan_marks(batches: Iterable[tuple[int, bytes | memoryview]], partitions: int) -> list[int]:
    """Return, by partition (index 0 unused), the report sequence of the last SETTLED mark in the batches."""
    settled = ffi.new("int64_t[]", partitions + 1)
    for _, records in batches:
        buffer = ffi.from_buffer("log_slot_t[]", records)
        lib.composed_scan_marks(buffer, len(records) // SLOT_SIZE, settled, partitions)
    return [int(settled[i]) for i in range(partitions + 1)]


class ComposedEngine:
    """A whole exchange core on private memory, driven one command at a time."""

    def __init__(self, config: EngineConfig, *, ring_slots: int = _RING_SLOTS) -> None:
        """Build everything; nothing is in the log yet: call `start`, or `replay` records first."""
        self.config = config
        self.sequencer = Sequencer(config)
        self.matchers = [Matcher(config, partition) for partition in range(1, config.partitions + 1)]
        self.log = Ring.private(slot_size=SLOT_SIZE, slot_count=ring_slots)
        self.ingress = Ring.private(slot_size=SLOT_SIZE, slot_count=1 << 10)
        self.reply = Ring.private(slot_size=SLOT_SIZE, slot_count=1 << 12)
        self.reports = [Ring.private(slot_size=SLOT_SIZE, slot_count=ring_slots) for _ in range(config.partitions + 1)]
        self.market = [
            Ring.private(slot_size=MARKET_SLOT_SIZE, slot_count=ring_slots) for _ in range(config.partitions + 1)
        ]
        self.sequencer.attach(
            log=self.log,
            report0=self.reports[0],
            reply=self.reply,
            reports={matcher.partition: self.reports[matcher.partition] for matcher in self.matchers},
            ingress={SOURCE_ADMIN: self.ingress},
        )
        for matcher in self.matchers:
            matcher.attach(log=self.log, reports=self.reports[matcher.partition], market=self.market[matcher.partition])
        self._pointers = ffi.new("matcher_t *[]", [matcher.ptr for matcher in self.matchers])
        self._now_ns = START_NS
        self._seen_reports = [0] * (config.partitions + 1)
        self._seen_market = [0] * (config.partitions + 1)
        self._seen_log = 0
        self._seen_reply = 0
        self._seq_nums: dict[int, int] = {}
        self._instruments: dict[int, int] = {}
        self._replies: list[Any] = []
        self._bound: set[int] = set()
        self.sequencer.set_time(self._now_ns)

    def start(self, epoch: int = 1) -> None:
        """Lead: write Genesis (in an empty log) and the epoch's first records."""
        self.sequencer.lead(epoch=epoch, node=1)
        self._run()

    def close(self) -> None:
        """Give the rings' memory back; the engine is not to be used any more."""
        for ring in (self.log, self.ingress, self.reply, *self.reports, *self.market):
            ring.close()

    def set_time(self, now_ns: int) -> None:
        """Set the clock the sequencer stamps with."""
        self._now_ns = now_ns
        self.sequencer.set_time(now_ns)

    def _run(self) -> None:
        if lib.composed_run(self.sequencer.ptr, self._pointers, len(self.matchers)) < 0:
            raise StageFailed(self.sequencer.error or "a stage of the composed engine failed")

    def submit_slots(self, slots: bytes) -> list[Output]:
        """Put raw ingress slots (n x 128 bytes) into the ring, run until idle, return the new outputs."""
        for offset in range(0, max(len(slots), 1), SLOT_SIZE):
            self.ingress.publish(slots[offset : offset + SLOT_SIZE])
        self._run()
        return self._new_outputs()

    def feed_ingress(self, slots: bytes) -> None:
        """Put whole ingress slots (n x 128 bytes, at most the ring) in at once and run; what comes out is not kept."""
        self.ingress.publish(*[slots[at : at + SLOT_SIZE] for at in range(0, len(slots), SLOT_SIZE)])
        self._run()

    def submit(self, session: int, message: Any, *, seq_num: int | None = None, flags: int = 0) -> list[Output]:
        """Submit one message of a bound session, run until idle, return the new reports in order.

        `seq_num` None = the session's next number.
        """
        expected = self._seq_nums.get(session, 0) + 1
        number = expected if seq_num is None else seq_num
        slot = encode_command(message, session=session, seq_num=number, flags=flags, ingress_ns=self._now_ns)
        outputs = self.submit_slots(slot)
        if number == expected and not messages.Template.BALANCE_QUERY <= message.TEMPLATE_ID < 500:
            self._seq_nums[session] = number
        return outputs

    def bind(self, session: int) -> None:
        """Negotiate and bind a session to the composed engine's only source (the operator's, so without a key)."""
        connection = session
        if session not in self._bound:
            self.submit_slots(
                encode_command(
                    messages.SessionNegotiate(session_ver_id=1, session_id=session, connection_id=connection),
                    session=session,
                    seq_num=0,
                )
            )
        self._bound.add(session)
        next_seq_no = self._seq_nums.get(session, 0) + 1
        bind = messages.SessionBind(
            session_ver_id=1, next_seq_no=next_seq_no, session_id=session, connection_id=connection
        )
        self.submit_slots(encode_command(bind, session=session, seq_num=0))

    def _new_outputs(self) -> list[Output]:
        outputs: list[Output] = []
        for partition, ring in enumerate(self.reports):
            first = self._seen_reports[partition]
            count = ring.published - first
            if count == 0:
                continue
            data = ring.read(first, count)
            for index in range(count):
                session, seq_num, flags, in_seq, message = decode_report(data[index * 128 : index * 128 + 128])
                outputs.append(Output(partition, first + index, session, seq_num, flags, in_seq, message))
            self._seen_reports[partition] = first + count
        count = self.reply.published - self._seen_reply
        if count:
            data = self.reply.read(self._seen_reply, count)
            self._replies += [decode_report(data[i * 128 : i * 128 + 128])[4] for i in range(count)]
            self._seen_reply += count
        # The sequencer's own answer to an input comes before what a matcher makes of a later one.
        outputs.sort(key=lambda output: output.in_seq)
        return outputs

    def replies(self) -> list[Any]:
        """Return the replies (queries, NotApplied) since the last call."""
        replies, self._replies = self._replies, []
        return replies

    def market_events(self) -> list[MarketEvent]:
        """Return the market-data events since the last call, partition by partition."""
        events: list[MarketEvent] = []
        for matcher in self.matchers:
            ring, first = self.market[matcher.partition], self._seen_market[matcher.partition]
            count = ring.published - first
            if count == 0:
                continue
            data = ring.read(first, count)
            for index in range(count):
                slot = data[index * 64 : index * 64 + 64]
                template = int.from_bytes(slot[10:12], "little")
                message = market_messages.MESSAGES[template].unpack(slot, 16)
                update_id = int.from_bytes(slot[0:8], "little")
                events.append(MarketEvent(matcher.partition, first + index, update_id, message))
            self._seen_market[matcher.partition] = first + count
        return events

    def log_records(self) -> list[tuple[int, bytes]]:
        """Return the log records written since the last call, as one batch."""
        first, count = self._seen_log, self.log.published - self._seen_log
        self._seen_log += count
        return [(first, self.log.read(first, count))] if count else []

    def replay(self, batches: Iterable[tuple[int, bytes | memoryview]]) -> int:
        """Apply past log records before `start`; return the next sequence."""
        position = feed_composed(self.sequencer, self.matchers, batches)
        # What was answered then is not answered again; of a long log the rings have only the last part.
        self._seen_reports = [ring.published for ring in self.reports]
        self._seen_reply = self.reply.published
        return position

    def balance(self, account: int, asset: int) -> tuple[int, int]:
        """Return (available, held) in units of the asset."""
        return self.sequencer.balance(account, asset)

    def open_orders(self, account: int) -> list[dict[str, int]]:
        """Return the order table's lines of an account."""
        return self.sequencer.open_orders(account)

    def book(self, instrument: int) -> tuple[BookSide, BookSide]:
        """Return (bids, asks): (order id, price, leaves) from the best level on, in time order within a level."""
        for matcher in self.matchers:
            if matcher.has_book(instrument):
                return matcher.book_side(instrument, sell=False), matcher.book_side(instrument, sell=True)
        return [], []

    def check(self) -> None:
        """Recount sequencer and books from scratch. Raises AssertionError naming what disagrees."""
        if not self.sequencer.check():
            raise AssertionError("sequencer: totals, holds, hash or conservation disagree")
        for matcher in self.matchers:
            matcher.check()

    def state_hash(self) -> bytes:
        """16 bytes over sequencer and all books."""
        return composed_hash(self.sequencer, self.matchers)
