"""A stand-in for sequencer and matchers behind a gateway: in Python, on private rings, with the session rules alone.

It admits like the sequencer (bound source, last + 1), numbers reports per (session, partition), and answers every
accepted order with OrderAccepted on partition 1. It has no books and no balances.
"""

import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.binary import BinaryServer
from ringbuf import Ring
from ringbuf.wire.base import WireMessage
from ringbuf.wire.codec import decode_block
from ringbuf.wire.messages import (
    MESSAGES,
    AdminAck,
    BalanceQuery,
    BalanceReply,
    BusinessReject,
    KeyQuery,
    KeyReply,
    NewOrderSingle,
    NotApplied,
    OrderAccepted,
    OrderRejected,
    QueryEnd,
    RejectCode,
    SessionBind,
    SessionBound,
    SessionDown,
    SessionNegotiate,
    SessionNegotiated,
    SessionQuery,
    SessionReply,
)
from ringbuf.wire.messages import (
    Sequence as SequenceMessage,
)

LOG_SLOT = struct.Struct("<IHHIBBHQQ80sQQ")
REPORT_SLOT = struct.Struct("<IHBBIHHIIQ96s")
SLOT_SIZE = 128
FLAG_MORE, FLAG_REJECT = 1, 4
ACCEPTED = 255


@dataclass(frozen=True)
class IngressSlot:
    session: int
    template: int
    flags: int
    seq_num: int
    block: bytes
    aux: int

    @property
    def message(self) -> WireMessage:
        return decode_block(self.template, 80, self.block)


@dataclass
class FakeSession:
    account: int
    version: int = 0
    last_in: int = 0
    source: int = 0
    bound: bool = False
    connection: int = 0
    numbers: dict[int, int] = field(default_factory=dict)
    last_report: dict[int, int] = field(default_factory=dict)


@dataclass
class FakeExchange:
    """Rings and state; `step` reads the ingress rings and answers."""

    partitions: int = 1
    report_slots: int = 1024
    ingress_slots: int = 256
    sources: tuple[int, ...] = (1, 2)
    # Turns by which partition 0's SessionBound is seen later than those of the matchers; None = it is the first.
    sequencer_late_turns: int | None = None

    def __post_init__(self) -> None:
        self.ingress = {
            source: Ring.private(slot_size=SLOT_SIZE, slot_count=self.ingress_slots, gating={0: "sequencer"})
            for source in self.sources
        }
        self.log = Ring.private(slot_size=SLOT_SIZE, slot_count=64, gating={0: "journaler"})
        self.reports = [
            Ring.private(slot_size=SLOT_SIZE, slot_count=self.report_slots) for _ in range(self.partitions + 1)
        ]
        self.reply = Ring.private(slot_size=SLOT_SIZE, slot_count=1024)
        self.sessions: dict[int, FakeSession] = {1: FakeSession(account=0, version=1, source=1, bound=True)}
        self.keys: dict[str, KeyReply] = {}
        self.received: list[IngressSlot] = []
        self.position = 1
        self._late: list[tuple[int, int, SessionBound]] = []  # turn it is due, session, what to say
        self._turn = 0
        self.paused = False
        self.report_log: dict[int, list[bytes]] = {partition: [] for partition in range(self.partitions + 1)}

    def attach(self, server: BinaryServer, source: int) -> None:
        server.attach(ingress=self.ingress[source], log=self.log, reports=self.reports, reply=self.reply)

    def step(self) -> None:
        if self.paused:
            return
        self._turn += 1
        due = [item for item in self._late if item[0] <= self._turn]
        self._late = [item for item in self._late if item[0] > self._turn]
        for _, session, bound in due:
            self.report(0, session, bound, number=False)
        for source, ring in self.ingress.items():
            cursor = ring.consumer(0).cursor
            while cursor < ring.published:
                fields = LOG_SLOT.unpack(ring.read(cursor))
                slot = IngressSlot(fields[0], fields[2], fields[6], fields[7], fields[9], fields[11])
                if slot.template != SessionDown.TEMPLATE_ID or slot.session != 0:  # the server's own first word
                    self.received.append(slot)
                self._take(slot, source)
                cursor += 1
                ring.advance(0, cursor)

    def requests(self) -> list[IngressSlot]:
        return [slot for slot in self.received if slot.seq_num > 0]

    # --- answers ----------------------------------------------------------------------------------------------------

    def report(self, partition: int, session: int, message: WireMessage, *, number: bool = True) -> int:
        """Put one report on a partition's ring; return its index."""
        ring, state = self.reports[partition], self.sessions[session]
        index, seq, distance = ring.published, 0, 0
        if number:
            seq = state.numbers[partition] = state.numbers.get(partition, 0) + 1
            previous = state.last_report.get(partition, 0)
            distance = index + 1 - previous if previous else 0
            state.last_report[partition] = index + 1
        template = type(message).TEMPLATE_ID
        slot = REPORT_SLOT.pack(
            session, template, 0, partition, 0, 0, 0, seq & 0xFFFFFFFF, distance, self.position, message.pack()
        )
        ring.publish(slot)
        self.report_log[partition].append(slot)
        return index

    def answer(self, session: int, message: WireMessage) -> None:
        slot = REPORT_SLOT.pack(session, type(message).TEMPLATE_ID, 0, 0, 0, 0, 0, 0, 0, self.position, message.pack())
        self.reply.publish(slot)

    # --- admission --------------------------------------------------------------------------------------------------

    def _take(self, slot: IngressSlot, source: int) -> None:
        if 400 <= slot.template < 500:
            self._query(slot)
            return
        self.position += 1
        if slot.template in (SessionNegotiate.TEMPLATE_ID, SessionBind.TEMPLATE_ID, SessionDown.TEMPLATE_ID):
            self._session_record(slot, source)
            return
        state = self.sessions.get(slot.session)
        if state is None or not state.bound or state.source != source:
            return
        if slot.template == SequenceMessage.TEMPLATE_ID:
            message = slot.message
            assert isinstance(message, SequenceMessage)
            state.last_in = max(state.last_in, message.next_seq_no - 1)
            return
        if slot.seq_num <= state.last_in:
            return
        if slot.seq_num > state.last_in + 1:
            count = slot.seq_num - state.last_in - 1
            self.answer(slot.session, NotApplied(from_seq_no=state.last_in + 1, count=count))
            return
        state.last_in = slot.seq_num
        self._request(slot)

    def _request(self, slot: IngressSlot) -> None:
        if slot.flags & FLAG_REJECT:
            if slot.template == NewOrderSingle.TEMPLATE_ID:
                rejected = OrderRejected(ref_seq_num=slot.seq_num, reject_code=slot.aux)
                self.report(0, slot.session, rejected)
            else:
                message = BusinessReject(ref_seq_num=slot.seq_num, ref_template_id=slot.template, reject_code=slot.aux)
                self.report(0, slot.session, message)
            return
        message = slot.message
        if isinstance(message, NewOrderSingle):
            accepted = OrderAccepted(
                cl_ord_id=message.cl_ord_id,
                order_id=self.position,
                ref_seq_num=slot.seq_num,
                price=message.price,
                order_qty=message.order_qty,
                instrument_id=message.instrument_id,
            )
            self.report(1, slot.session, accepted)
        elif 330 <= slot.template < 400:
            ack = AdminAck(
                request_id=message.request_id,  # type: ignore[attr-defined]
                result_id=self.position,
                ref_seq_num=slot.seq_num,
                ref_template_id=slot.template,
            )
            self.report(0, slot.session, ack)

    def _session_record(self, slot: IngressSlot, source: int) -> None:
        message = slot.message
        if isinstance(message, SessionNegotiate):
            self._negotiate(message)
        elif isinstance(message, SessionBind):
            self._bind(message, source)
        elif isinstance(message, SessionDown):
            if message.session_id == 0:  # a gateway has started: nobody is bound through it any more
                for other in self.sessions.values():
                    other.bound &= other.source != source
                return
            state = self.sessions[message.session_id]
            if state.connection == message.connection_id:
                state.bound = False

    def _negotiate(self, message: SessionNegotiate) -> None:
        state = self.sessions.get(message.session_id)
        key = self.keys.get(message.access_key_id)
        code = ACCEPTED
        if state is None or key is None or key.account_id != state.account:
            code = 0
        elif message.timestamp <= key.last_timestamp:
            code = 10
        elif message.session_ver_id <= state.version:
            code = 2
        answer = SessionNegotiated(
            session_ver_id=message.session_ver_id,
            current_session_ver_id=state.version if state else 0,
            request_timestamp=message.timestamp,
            session_id=message.session_id,
            connection_id=message.connection_id,
            code=code,
        )
        self.sessions.setdefault(message.session_id, FakeSession(account=0))
        self.report(0, message.session_id, answer, number=False)
        if code == ACCEPTED and state is not None:
            self._remember(message.access_key_id, message.timestamp)
            account = state.account
            self.sessions[message.session_id] = FakeSession(account=account, version=message.session_ver_id)

    def _bind(self, message: SessionBind, source: int) -> None:
        state = self.sessions[message.session_id]
        code = ACCEPTED
        if self.keys[message.access_key_id].account_id != state.account:
            code = 4
        elif message.session_ver_id != state.version:
            code = 0
        elif message.next_seq_no <= state.last_in:
            code = 11
        partitions = range(self.partitions + 1) if code == ACCEPTED else range(1)
        for partition in partitions:
            bound = SessionBound(
                session_ver_id=message.session_ver_id,
                next_seq_no=state.numbers.get(partition, 0) + 1,
                last_report_seq=state.last_report.get(partition, 0),
                last_incoming_seq_no=state.last_in,
                request_timestamp=message.timestamp,
                session_id=message.session_id,
                connection_id=message.connection_id,
                code=code,
                partition=partition,
            )
            if partition == 0 and self.sequencer_late_turns is not None:
                self._late.append((self._turn + self.sequencer_late_turns, message.session_id, bound))
            else:
                self.report(partition, message.session_id, bound, number=False)
        if code == ACCEPTED:
            self._remember(message.access_key_id, message.timestamp)
            state.bound, state.source, state.connection = True, source, message.connection_id

    def _remember(self, key_id: str, timestamp: int) -> None:
        key = self.keys[key_id]
        self.keys[key_id] = KeyReply(
            last_timestamp=timestamp,
            access_key_id=key.access_key_id,
            material=key.material,
            account_id=key.account_id,
            permissions=key.permissions,
            credential_type=key.credential_type,
        )

    def _query(self, slot: IngressSlot) -> None:
        message = slot.message
        count, code = 0, RejectCode.NONE
        if isinstance(message, KeyQuery):
            key = self.keys.get(message.access_key_id)
            code = RejectCode.UNKNOWN_KEY if key is None else RejectCode.NONE
            if key is not None:
                values = {name: getattr(key, name) for name in key.__match_args__} | {"request_id": message.request_id}
                self.answer(slot.session, KeyReply(**values))
        elif isinstance(message, SessionQuery):
            state = self.sessions[message.session_id]
            reply = SessionReply(
                request_id=message.request_id, session_id=message.session_id, last_incoming_seq_no=state.last_in
            )
            self.answer(slot.session, reply)
        elif isinstance(message, BalanceQuery):
            reply_of = BalanceReply(request_id=message.request_id, available=77, account_id=message.account_id)
            self.answer(slot.session, reply_of)
            count = 1
        end = QueryEnd(
            request_id=message.request_id,  # type: ignore[attr-defined]
            count=count,
            code=code,
            ref_template_id=slot.template,
        )
        self.answer(slot.session, end)


class Loop:
    """Runs servers and a fake exchange on one thread until closed; `call` runs something between two turns."""

    def __init__(self, exchange: FakeExchange, *servers: BinaryServer) -> None:
        self._exchange = exchange
        self._servers = servers
        self._stop = False
        self._calls: list[Callable[[], object]] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.error: BaseException | None = None

    def __enter__(self) -> "Loop":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop = True
        self._thread.join(10)
        if self.error is not None:
            raise self.error

    def call(self, action: Callable[[], object]) -> None:
        """Run `action` on the loop's thread and wait for it."""
        done = threading.Event()

        def run() -> None:
            action()
            done.set()

        self._calls.append(run)
        assert done.wait(5)

    def _run(self) -> None:
        try:
            while not self._stop:
                work = 0
                while self._calls:
                    self._calls.pop(0)()
                for server in self._servers:
                    work += server.poll()
                    work += server.service()
                self._exchange.step()
                if work == 0:
                    time.sleep(0.0005)
        except BaseException as error:
            self.error = error


assert all(kind.BLOCK_LENGTH <= 80 for template, kind in MESSAGES.items() if 100 <= template < 200)
