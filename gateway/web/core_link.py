"""A worker's way to the core: one privileged session on the binary gateway, acting for any account.

Requests are answered by reports, found by their number. What else an input did (fills of a new order, orders of a mass
cancel) stands beside the answer in the report ring: InputReader reads it there, up to the mark that ends the input.

After a lost connection the session begins a new version: what was sent and not answered is never sent again, so a
request a client was told nothing about is not applied later on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from gateway.clients.python.client import BullringClient, LogonRefused, Report, ReportGap, SessionLost, _Link
from gateway.clients.python.signing import HmacSigner, Signer
from gateway.web.history import BLOCK_OFFSET, REPORT_SLOT, SLOT_SIZE
from journaler.reader import ReportArchive
from ringbuf import Lapped, Ring
from ringbuf.wire import messages as wire
from ringbuf.wire.base import WireMessage
from ringbuf.wire.codec import FRAME_HEADER, FRAME_HEADER_SIZE, SOFH_ENCODING_TYPE, encode_frame
from ringbuf.wire.messages import FrameFlag

REPORT_SEQ_MASK = (1 << 56) - 1
PARTITION_SHIFT = 56
FLAG_LAST_OF_INPUT = 2
READ_AHEAD = 64
RETRY_S = 0.0005
RECONNECT_S = 0.1
SWEEP_S = 0.5
CREDENTIALS_S = 1.0
NO_SIGNER = HmacSigner("", b"")  # until there are credentials
ANSWER_TIMEOUT_S = 10.0
_ORDER_PREFIX = (
    FRAME_HEADER_SIZE + wire.NewOrderSingle.BLOCK_LENGTH, SOFH_ENCODING_TYPE, wire.NewOrderSingle.BLOCK_LENGTH,
    wire.NewOrderSingle.TEMPLATE_ID, wire.SCHEMA_ID, wire.SCHEMA_VERSION, 0,
)  # fmt: skip
_ACCEPTED_SIZE = FRAME_HEADER_SIZE + wire.OrderAccepted.BLOCK_LENGTH
_REF_SEQ_NUM = wire.OrderAccepted.__match_args__.index("ref_seq_num")


class CoreUnavailable(ConnectionError):
    """The session is not bound: nothing was sent."""


class OutcomeUnknown(Exception):
    """The request was sent, and no answer came: it may or may not be in the log."""


@dataclass(slots=True)
class Answer:
    """The report that answers one numbered request, and where it stands."""

    partition: int
    report: Any

    @property
    def report_seq(self) -> int:
        return int(self.report.exec_id & REPORT_SEQ_MASK)


@dataclass(slots=True)
class _Pending:
    done: asyncio.Future[dict[int, list[Answer]]]
    waiting: dict[int, int]  # number -> answers still to come
    until: float
    answers: dict[int, list[Answer]] = field(default_factory=dict)

    def lost(self, why: str) -> bool:
        if self.done.done():
            return False
        self.done.set_exception(OutcomeUnknown(why))
        return True


class SingleOrder(Protocol):
    """Who waits for the first report of one new order, without a future of its own."""

    until: float

    def accepted(self, partition: int, report: tuple[int, ...]) -> None:
        """It was accepted; `report` has the fields of OrderAccepted, in the schema's order."""

    def answered(self, answer: Answer) -> None:
        """Another report answers it."""

    def lost(self, why: str) -> bool:
        """No answer will come; whether that was news."""


Credentials = Callable[[], Awaitable[tuple[int, Signer] | None]]


class CoreLink(BullringClient):
    """`run()` binds the session and keeps it bound.

    `credentials` is asked for (session id, key) until it has them: a node that follows cannot make a session yet.
    """

    def __init__(self, addresses: Sequence[tuple[str, int]], *, credentials: Credentials, partitions: int) -> None:
        super().__init__(addresses, session_id=0, signer=NO_SIGNER, resume=False)
        self._credentials = credentials
        self._reports = _Delivery(self)
        self._partitions = partitions
        self._pending: dict[int, _Pending] = {}
        self._singles: dict[int, SingleOrder] = {}
        self._lost_event = asyncio.Event()
        self.bound = asyncio.Event()  # set once the session has been bound the first time
        self.unknown_outcomes = 0

    async def run(self) -> None:
        """Bind the session again and again, for ever."""
        self._spawn(self._sweep())
        while True:
            try:
                if not await self._ready_to_sign():
                    await asyncio.sleep(CREDENTIALS_S)
                    continue
                await self.start()
                self._lost_event.clear()
                self.bound.set()
                if self.established:
                    await self._lost_event.wait()
            except (OSError, TimeoutError, LogonRefused, SessionLost):
                pass  # nobody there yet, or not ready: again
            self._fail_pending()
            if self._link is not None:
                self._link.close()
            await asyncio.sleep(RECONNECT_S)

    async def _sweep(self) -> None:
        """Give up what has waited too long; one look now and then costs less than a timer for each request."""
        while True:
            await asyncio.sleep(SWEEP_S)
            now = asyncio.get_running_loop().time()
            late = [seq_num for seq_num, order in self._singles.items() if order.until < now]
            given_up: list[_Pending | SingleOrder] = [each for each in self._pending.values() if each.until < now]
            given_up += [self._singles.pop(seq_num) for seq_num in late]
            for waiting in given_up:
                self.unknown_outcomes += waiting.lost("no answer in time")

    async def _ready_to_sign(self) -> bool:
        if self.session_id == 0:
            found = await self._credentials()
            if found is None:
                return False
            self.session_id, self._signer = found
        return True

    async def request(self, *messages: WireMessage) -> list[list[Answer]]:
        """Send one linked group; return the answers of each message, in order (none for OrderDetails).

        Raises CoreUnavailable (nothing was sent), OutcomeUnknown.
        """
        if not self.established or self._link is None:
            raise CoreUnavailable("the session to the exchange is not bound")
        first = self._own.next_seq
        now_ns = self._wall_ns()  # the sequencer counts max_latency_us from here
        loop = asyncio.get_running_loop()
        done: asyncio.Future[dict[int, list[Answer]]] = loop.create_future()
        pending = _Pending(done, {}, loop.time() + ANSWER_TIMEOUT_S)
        frames = bytearray()
        for index, message in enumerate(messages):
            seq_num = first + index
            if not isinstance(message, wire.OrderDetails):
                mass = isinstance(message, wire.MassCancelRequest)
                pending.waiting[seq_num] = self._partitions if mass else 1
                self._pending[seq_num] = pending
            flags = FrameFlag.MORE if index + 1 < len(messages) else 0
            frames += encode_frame(message, seq_num=seq_num, flags=flags, sending_time=now_ns)
        self._own.next_seq = first + len(messages)
        self._link.send(bytes(frames))
        try:
            answers = await done
        finally:
            for seq_num in range(first, first + len(messages)):
                self._pending.pop(seq_num, None)
        return [answers.get(first + index, []) for index in range(len(messages))]

    def place_single(self, order: SingleOrder, block: bytes, details: wire.OrderDetails | None) -> None:
        """Send one NewOrderSingle, with the text that belongs to it; `order` is told. Raises CoreUnavailable."""
        if not self.established or not isinstance(self._link, _CoreConnection):
            raise CoreUnavailable("the session to the exchange is not bound")
        seq_num = self._own.next_seq
        now_ns = self._wall_ns()
        frames = b""
        if details is not None:
            frames = encode_frame(details, seq_num=seq_num, flags=FrameFlag.MORE, sending_time=now_ns)
            seq_num += 1
        order.until = asyncio.get_running_loop().time() + ANSWER_TIMEOUT_S
        self._singles[seq_num] = order
        self._own.next_seq = seq_num + 1
        self._link.post(frames + FRAME_HEADER.pack(*_ORDER_PREFIX, seq_num, now_ns) + block)

    def order_accepted(self, flags: int, seq_num: int, data: bytes, offset: int) -> bool:
        """Take an OrderAccepted that a single order waits for; False: it has to go the general way."""
        report = wire.OrderAccepted.STRUCT.unpack_from(data, offset)
        order = self._singles.get(report[_REF_SEQ_NUM])
        partition = flags >> 8
        flow = self._flows.get(partition)
        if order is None or flow is None or not flow.in_order(seq_num):
            return False
        del self._singles[report[_REF_SEQ_NUM]]
        self._own.taken(report[_REF_SEQ_NUM])
        order.accepted(partition, report)
        return True

    async def _link_to(self, host: str, port: int) -> _Link:
        loop = asyncio.get_running_loop()
        try:
            _, link = await loop.create_connection(lambda: _CoreConnection(self), host, port, ssl=self._tls)
        except OSError as error:
            raise ConnectionError(f"{host}:{port}: {error}") from error
        return link

    def uses(self, link: _Link) -> bool:
        return link is self._link

    def new_request_id(self) -> int:
        """Return an id for a query that no other query has."""
        return self._request()

    def deliver(self, item: Report | ReportGap | SessionLost) -> None:
        """Take a report as it comes, in place of the queue a client reads."""
        if isinstance(item, SessionLost):
            self._lost_event.set()
        elif isinstance(item, Report) and item.seq_num:
            self._answered_request(item)

    def _answered_request(self, item: Report) -> None:
        report = item.message
        seq_num = getattr(report, "ref_seq_num", 0)
        single = self._singles.get(seq_num)
        if single is not None and not isinstance(report, wire.OrderPrevented):
            del self._singles[seq_num]
            single.answered(Answer(item.partition, report))
            return
        pending = self._pending.get(seq_num)
        if pending is None or isinstance(report, wire.OrderPrevented):
            return
        if isinstance(report, wire.OrderCanceled) and report.cancel_reason != wire.CancelReason.CLIENT:
            return  # a mass cancel tells of each order; its own answer comes behind
        pending.answers.setdefault(seq_num, []).append(Answer(item.partition, report))
        left = pending.waiting.get(seq_num, 0) - 1
        refused = isinstance(report, wire.MassCancelReport) and report.reject_code != wire.RejectCode.NONE
        if left > 0 and not refused and not isinstance(report, wire.BusinessReject):
            pending.waiting[seq_num] = left
            return
        pending.waiting.pop(seq_num, None)
        if not pending.waiting and not pending.done.done():
            pending.done.set_result(pending.answers)

    def _fail_pending(self) -> None:
        waiting: list[_Pending | SingleOrder] = [*self._pending.values(), *self._singles.values()]
        self._pending, self._singles = {}, {}
        for each in waiting:
            self.unknown_outcomes += each.lost("the connection to the exchange was lost")

    def _not_applied(self, message: wire.NotApplied) -> None:
        """Cannot be on one healthy connection: begin anew rather than send again."""
        if self._link is not None:
            self._link.close()


class _CoreConnection(_Link):
    """The connection to the core: an OrderAccepted in its turn, most of what comes, is not made an object of."""

    _core: CoreLink

    def __init__(self, core: CoreLink) -> None:
        super().__init__(core)
        self._core = core
        self._posted: list[bytes] = []

    def post(self, frame: bytes) -> None:
        """Send at the end of this turn of the loop, with what else is posted in it; or before the next send()."""
        if not self._posted:
            asyncio.get_running_loop().call_soon(self.send, b"")
        self._posted.append(frame)

    def send(self, frame: bytes) -> None:
        if self._posted:
            frame = b"".join((*self._posted, frame))
            self._posted.clear()
        if frame:
            super().send(frame)

    def data_received(self, data: bytes) -> None:
        if self._reader.pending_bytes:  # the rest of a frame
            super().data_received(data)
            return
        at, end = 0, len(data)
        while end - at >= _ACCEPTED_SIZE and self._core.uses(self):
            length, encoding, _, template, schema, _, flags, seq_num, _ = FRAME_HEADER.unpack_from(data, at)
            if encoding != SOFH_ENCODING_TYPE or not 0 < length <= end - at:
                break  # for the general reader, whatever it is
            if (
                template != wire.OrderAccepted.TEMPLATE_ID or length != _ACCEPTED_SIZE or schema != wire.SCHEMA_ID
                or not self._core.order_accepted(flags, seq_num, data, at + FRAME_HEADER_SIZE)
            ):  # fmt: skip
                super().data_received(data[at : at + length])
            at += length
        if at < end:
            super().data_received(data[at:])
        else:
            self.received_at = asyncio.get_running_loop().time()


class _Delivery(asyncio.Queue[Report | ReportGap | SessionLost]):
    """A queue that keeps nothing: answers go straight to who waits for them."""

    def __init__(self, link: CoreLink) -> None:
        super().__init__()
        self._link = link

    def put_nowait(self, item: Report | ReportGap | SessionLost) -> None:
        self._link.deliver(item)


class InputReader:
    """Reads from the report rings what one input did. The rings are only looked at."""

    def __init__(self, reports: Mapping[int, Ring], archive: ReportArchive) -> None:
        self._reports = reports
        self._archive = archive

    def published(self) -> dict[int, int]:
        """Return how many reports of each partition there are now."""
        return {partition: ring.published for partition, ring in self._reports.items()}

    def alone(self, partition: int, report_seq: int) -> bool:
        """Whether a report is the last one of its input: nothing else has happened, and nothing will."""
        slot = self._reports[partition].peek(report_seq)
        return slot is not None and bool(_head(slot)[1] & FLAG_LAST_OF_INPUT)

    async def after(self, answer: Answer) -> list[WireMessage]:
        """Return an answer and the reports of the same input behind it; waits until the input has ended."""
        partition, at = answer.partition, answer.report_seq
        found: list[WireMessage] = [answer.report]
        cause: int | None = None
        ended = False
        for slot in self._slots(partition, at, 1):  # mostly the only one: it need not be decoded again
            _, flags, cause = _head(slot)
            at, ended = at + 1, bool(flags & FLAG_LAST_OF_INPUT)
        end = asyncio.get_running_loop().time() + ANSWER_TIMEOUT_S
        while not ended and asyncio.get_running_loop().time() < end:
            if at >= self._reports[partition].published:
                await asyncio.sleep(RETRY_S)
            at, cause, ended = self._scan(partition, at, READ_AHEAD, cause, found)
        return found

    def _scan(
        self, partition: int, at: int, count: int, cause: int | None, found: list[WireMessage]
    ) -> tuple[int, int | None, bool]:
        """Add up to `count` reports of one cause to `found`; return where to go on, the cause, whether it has ended."""
        for slot in self._slots(partition, at, count):
            template, flags, in_seq = _head(slot)
            cause = in_seq if cause is None else cause
            if in_seq != cause:
                return at, cause, True
            found += _decoded(template, slot)
            at += 1
            if flags & FLAG_LAST_OF_INPUT:
                return at, cause, True
        return at, cause, False

    def before(self, partition: int, report_seq: int) -> list[WireMessage]:
        """Return the reports of the input of `report_seq` that stand before it."""
        found: list[WireMessage] = []
        at = report_seq
        cause: int | None = None
        while at >= 0:
            first = max(0, at - READ_AHEAD + 1)
            batch = self._slots(partition, first, at - first + 1)
            block: list[WireMessage] = []
            for slot in reversed(batch):
                template, _, in_seq = _head(slot)
                cause = in_seq if cause is None else cause
                if in_seq != cause:
                    return list(reversed(block)) + found
                block += _decoded(template, slot)
            found = list(reversed(block)) + found
            if not batch:
                return found
            at = first - 1
        return found

    def _slots(self, partition: int, first: int, count: int) -> list[bytes]:
        ring = self._reports[partition]
        count = min(count, ring.published - first)
        if count <= 0:
            return []
        try:
            data = ring.read(first, count)
        except (Lapped, IndexError):
            data = self._archive.read(partition, first, count)
        return [data[at : at + SLOT_SIZE] for at in range(0, len(data), SLOT_SIZE)]


def _head(slot: Any) -> tuple[int, int, int]:
    _, template, _, _, _, flags, _, _, _, in_seq = REPORT_SLOT.unpack_from(slot)
    return template, flags, in_seq


def _decoded(template: int, slot: bytes) -> list[WireMessage]:
    kind = wire.MESSAGES.get(template)
    return [] if kind is None else [kind.unpack(slot, BLOCK_OFFSET)]
