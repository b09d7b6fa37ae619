"""A real exchange in one thread whose every part is run by hand: gateways, sequencer, matcher, journaler on real files.

Between gateways and sequencer stands a carrier. With the right rules it passes slots on as they are; with planted wrong
ones it does what an exchange of that design would do (the rule sets of the design's model).
"""

import shutil
import socket
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from struct import Struct

from engine import EngineConfig, Matcher, Sequencer
from engine._engine import ffi, lib
from engine.engine import feed_composed
from gateway.auth import hmac_secret
from gateway.binary import BinaryServer, ServerConfig
from gateway.clients import HmacSigner
from gateway.clients.python.flow import OwnFlow, ReportFlow
from gateway.clients.python.signing import signed_frame
from journaler import Journaler, JournalerConfig, LogReader
from journaler.recover import recover
from ringbuf import Ring
from ringbuf.ring import Mode
from ringbuf.wire import messages as wire
from ringbuf.wire.base import WireMessage
from ringbuf.wire.codec import FrameReader, decode_block, encode_frame

SLOT_SIZE, MARKET_SLOT_SIZE = 128, 64
ADMIN, GATEWAYS = 1, (2, 3)
ENGINE = EngineConfig(
    partitions=1,
    orders_per_partition=1024,
    accounts_max=16,
    balances_max=64,
    sessions_max=16,
    instruments_max=4,
    assets_max=4,
    keys_max=16,
)
SEAL = b"s" * 32
KEY_ID, SALT = "KEY", b"x" * 32
ACCOUNT, SESSION, PAIR = 6, 2, 1
LOG_SLOT = Struct("<IHHIBBHQQ80sQQ")
REPORT_SLOT = Struct("<IHBBIHHIIQ96s")
REJECT = 4
GATEWAY_REJECT_SIDE = 3  # no side: refused by the gateway


class Rules(Enum):
    """Who keeps exactly-once, and how."""

    RIGHT = "as built"
    ANY_LATER_NUMBER = "the engine takes any number above the last one"
    DEDUPE_IN_GATEWAY = "only the gateway, per connection, drops duplicates"
    REPORTS_BEFORE_JOURNAL = "reports leave before their cause is journaled"
    UNNUMBERED_REJECTS = "the gateway refuses without a record"


class World:
    """One node on one journal directory. `start` recovers it; every other method runs one part a bit."""

    def __init__(self, folder: Path, rules: Rules = Rules.RIGHT) -> None:
        self.folder = folder
        self.rules = rules
        self.restarts = 0
        self._bound = GATEWAYS[0]  # where the newest bind came through
        self._expected: dict[int, int] = {}  # by source: what the gateway of DEDUPE_IN_GATEWAY waits for
        self.direct: list[int] = []  # refusals that only the connection carries
        self.start()

    # --- life -------------------------------------------------------------------------------------------------------

    def start(self, late: Mapping[int, list[bytes]] | None = None) -> None:
        end, epoch = self._journal_end()
        durable = self.rules is not Rules.REPORTS_BEFORE_JOURNAL
        mode = Mode.DURABLE if durable else Mode.PLAIN
        self.log = Ring.private(slot_size=SLOT_SIZE, slot_count=4096, base=end, mode=mode)
        self.reports = [Ring.private(slot_size=SLOT_SIZE, slot_count=4096) for _ in range(2)]
        self.market = Ring.private(slot_size=MARKET_SLOT_SIZE, slot_count=1024)
        self.reply = Ring.private(slot_size=SLOT_SIZE, slot_count=4096)
        self.outer = {
            source: Ring.private(slot_size=SLOT_SIZE, slot_count=256, gating={0: "carrier"}) for source in GATEWAYS
        }
        self.ingress = {source: Ring.private(slot_size=SLOT_SIZE, slot_count=256) for source in (ADMIN, *GATEWAYS)}
        settings = JournalerConfig(
            directory=self.folder,
            mode="D1" if durable else "D0",
            segment_size_bytes=64 * 1024,
            segments_ahead=1,
            lazy_us=0,
            archive=False,
            audit=False,
        )
        self.journaler = Journaler(settings, self.log, {})
        self.sequencer, self.matcher = Sequencer(ENGINE), Matcher(ENGINE, 1)
        self.sequencer.attach(
            log=self.log,
            report0=self.reports[0],
            reply=self.reply,
            reports={1: self.reports[1]},
            ingress=self.ingress,
        )
        self.matcher.attach(log=self.log, reports=self.reports[1], market=self.market)
        if end:
            self._feed(end)
        self.sequencer.lead(epoch=epoch + 1, node=1)
        for source, slots in (late or {}).items():
            if slots:
                self.outer[source].publish(*slots)
        self.servers = {source: self._server(source) for source in GATEWAYS}
        self.direct.clear()

    def _journal_end(self) -> tuple[int, int]:
        if not self.folder.is_dir() or not any(self.folder.iterdir()):
            return 0, 0
        position = recover(self.folder).position
        return position.sequence, position.epoch

    def _feed(self, end: int) -> None:
        feed_composed(self.sequencer, [self.matcher], LogReader(self.folder).batches(0, end))

    def _server(self, source: int) -> BinaryServer:
        config = ServerConfig(source=source, partitions=1, sessions_max=16, connections_max=16)
        server = BinaryServer(config, seal_key=SEAL)
        server.attach(ingress=self.outer[source], log=self.log, reports=self.reports, reply=self.reply)
        self._ports = {**getattr(self, "_ports", {}), source: server.listen_tcp("127.0.0.1", 0)}
        return server

    def port(self, source: int) -> int:
        return self._ports[source]

    def kill_gateway(self, source: int) -> None:
        """It forgets everything; what it had put into its ring is there."""
        del self.servers[source]
        self._expected.pop(source, None)
        self.servers[source] = self._server(source)

    def restart(self, *, drain: bool) -> int:
        """Everything dies, as with kill -9: the files stay as they are at this moment, what they have not is gone.

        Drain: requests on the way between gateways and sequencer survive, as at a gateway that is not the dead host's.
        Returns how many records of the log are gone.
        """
        late = {source: self._on_the_way(source) for source in GATEWAYS} if drain else {}
        self.restarts += 1
        before = self.log.published
        as_it_was = self.folder.with_name(f"{self.folder.name}+")
        shutil.copytree(self.folder, as_it_was, ignore=shutil.ignore_patterns("spare-*"))  # comes and goes by itself
        self.close()
        shutil.rmtree(self.folder)
        self.folder = as_it_was
        self._expected.clear()
        self.start(late)
        return before - int(self.log.base)

    def _on_the_way(self, source: int) -> list[bytes]:
        ring = self.outer[source]
        return [ring.read(index) for index in range(ring.consumer(0).cursor, ring.published)]

    def close(self) -> None:
        self.servers.clear()
        self.journaler.close()
        for ring in (self.log, self.market, self.reply, *self.reports, *self.outer.values(), *self.ingress.values()):
            ring.close()

    # --- running ----------------------------------------------------------------------------------------------------

    def gateway(self, source: int) -> None:
        server = self.servers[source]
        server.poll()
        server.service()

    def engine(self) -> None:
        matchers = ffi.new("matcher_t *[]", [self.matcher.ptr])
        assert lib.composed_run(self.sequencer.ptr, matchers, 1) >= 0, self.sequencer.error

    def journal(self) -> None:
        self.journaler.poll()

    def everything(self) -> None:
        for source in GATEWAYS:
            self.gateway(source)
            self.carry(source)
        self.engine()
        self.journal()
        self.engine()

    # --- the carrier ------------------------------------------------------------------------------------------------

    def carry(self, source: int) -> None:
        """Pass on what a gateway has published."""
        ring = self.outer[source]
        cursor = ring.consumer(0).cursor
        while cursor < ring.published:
            slot = ring.read(cursor)
            cursor += 1
            if self.rules in (Rules.RIGHT, Rules.REPORTS_BEFORE_JOURNAL):
                self.ingress[source].publish(slot)
            else:
                self.engine()  # what was passed on before is in the log
                self._carry_wrongly(source, slot)
            ring.advance(0, cursor)

    def _carry_wrongly(self, source: int, slot: bytes) -> None:
        fields = list(LOG_SLOT.unpack(slot))
        session, template, number, flags = fields[0], fields[2], fields[7], fields[6]
        last = self.last_incoming(session)
        if template == wire.SessionBind.TEMPLATE_ID:
            self._expected[source] = last + 1
            self._bound = source
        if number == 0 or session <= ADMIN:
            self.ingress[source].publish(slot)
            return
        ring = self.ingress[self._bound]  # such designs know no binding: a stale gateway's requests count as well
        if self.rules is Rules.DEDUPE_IN_GATEWAY:
            if number < self._expected.get(source, 1):
                return
            self._expected[source] = number + 1
            fields[7] = last + 1
            ring.publish(LOG_SLOT.pack(*fields))
            return
        if self.rules is Rules.UNNUMBERED_REJECTS and flags & REJECT:
            self.direct.append(number)
            return
        if number > last + 1:
            skip = list(fields)
            skip[2], skip[6], skip[7], skip[11] = wire.Sequence.TEMPLATE_ID, 0, 0, 0
            skip[9] = wire.Sequence(next_seq_no=number).pack().ljust(80, b"\0")
            ring.publish(LOG_SLOT.pack(*skip))
        ring.publish(slot)

    def last_incoming(self, session: int) -> int:
        last = 0
        for fields in self.records():
            if fields[0] != session or fields[1] == 0:
                continue
            if fields[2] == wire.Sequence.TEMPLATE_ID:
                last = wire.Sequence.unpack(fields[9]).next_seq_no - 1
            elif fields[7]:
                last = fields[7]
            elif fields[2] == wire.SessionNegotiate.TEMPLATE_ID and not fields[6] & REJECT:
                last = 0
        return last

    def records(self) -> Iterator[tuple[int, ...]]:
        """Yield all log records: those of the files, and those of the ring that are not in them yet."""
        base = self.log.published
        data = b""
        start = int(self.log.base)
        if start:
            data += b"".join(bytes(batch) for _, batch in LogReader(self.folder).batches(0, start))
        if base > start:
            data += self.log.read(start, base - start)
        return LOG_SLOT.iter_unpack(data)

    # --- bootstrap --------------------------------------------------------------------------------------------------

    def set_up(self) -> None:
        """Two assets, a pair, an account with money, its key and session."""
        commands: list[WireMessage] = [
            wire.AssetAdd(symbol="BASE"),
            wire.AssetAdd(symbol="QUOTE"),
            wire.InstrumentAdd(
                tick_size=1, lot_size=1, quote_per_tick_lot=1, base_per_lot=1, base_asset_id=1, quote_asset_id=2,
                symbol="BASE-QUOTE",
            ),
            wire.AccountCreate(account_id=ACCOUNT),
            wire.BalanceAdjust(amount=1 << 40, account_id=ACCOUNT, asset_id=2, kind=wire.BalanceKind.DEPOSIT),
            wire.KeyCreate(
                access_key_id=KEY_ID, account_id=ACCOUNT, material=SALT,
                credential_type=wire.CredentialType.HMAC_SHA256, permissions=wire.Permissions(3),
            ),
            wire.SessionCreate(account_id=ACCOUNT, session_id=SESSION),
        ]  # fmt: skip
        for number, message in enumerate(commands, 1):
            block = message.pack().ljust(80, b"\0")
            slot = LOG_SLOT.pack(1, 0, message.TEMPLATE_ID, 0, 0, 0, 0, number, time.time_ns(), block, 0, 0)
            self.ingress[ADMIN].publish(slot)
        for _ in range(50):
            self.everything()


def prepared(folder: Path) -> Path:
    """Make a journal of an exchange that is set up; to be copied for each run."""
    world = World(folder)
    world.set_up()
    while world.log.commit < world.log.published:
        world.journal()
    world.close()
    return folder


def copy_of(template: Path, folder: Path) -> Path:
    shutil.copytree(template, folder)
    return folder


class Desk:
    """The client of one session, byte by byte: what the real clients keep, on a socket that is run by hand."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.own = OwnFlow()
        self.flows: dict[int, ReportFlow[WireMessage]] = {0: ReportFlow(), 1: ReportFlow()}
        self.received: dict[int, list[WireMessage]] = {0: [], 1: []}
        self.refused_directly: set[int] = set()
        self._signer = HmacSigner(KEY_ID, hmac_secret(SEAL, KEY_ID, SALT))
        self._socket: socket.socket | None = None
        self._stale: list[socket.socket] = []
        self._reader = FrameReader()
        self._sent = FrameReader()
        self._out = b""
        self.sent_bytes = self.heard_bytes = 0  # of this connection
        self.requests_resent = self.reports_asked = 0
        self._negotiated = False
        self._asked: set[int] = set()
        self.established = False
        self.failed = ""

    # --- connections ------------------------------------------------------------------------------------------------

    def connect(self, source: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", self.world.port(source)), timeout=5)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setblocking(False)
        self._reader, self._sent, self._out = FrameReader(), FrameReader(), b""
        self.sent_bytes = self.heard_bytes = 0
        self._log_on()

    def cut(self, *, abandon: bool) -> None:
        """Lose the connection. Abandoned: the gateway does not hear of it, and may still read what was sent."""
        if self._socket is not None:
            if abandon:
                self._stale.append(self._socket)
            else:
                self._socket.close()
        self._socket = None
        self.established = False
        self._asked.clear()
        self.world.direct.clear()

    def close(self) -> None:
        self.cut(abandon=False)
        for old in self._stale:
            old.close()

    @property
    def connected(self) -> bool:
        return self._socket is not None

    @property
    def part_sent(self) -> int:
        """How many bytes of a frame have been sent whose end has not."""
        return self._sent.pending_bytes

    @property
    def part_heard(self) -> int:
        """How many bytes of a frame have been heard whose end has not."""
        return self._reader.pending_bytes

    def _log_on(self) -> None:
        message: wire.Negotiate | wire.Establish
        if not self._negotiated:
            message = wire.Negotiate(
                session_id=SESSION, credential_type=wire.CredentialType.HMAC_SHA256, session_ver_id=1,
                timestamp=time.time_ns(), access_key_id=KEY_ID,
            )  # fmt: skip
        else:
            message = wire.Establish(
                session_id=SESSION, keep_alive_interval_ms=60_000, session_ver_id=1, timestamp=time.time_ns(),
                next_seq_no=self.own.next_seq, credential_type=wire.CredentialType.HMAC_SHA256, access_key_id=KEY_ID,
            )  # fmt: skip
        self._out = signed_frame(message, self._signer, sending_time=0)

    # --- doing ------------------------------------------------------------------------------------------------------

    def place(self, side: int) -> int:
        number = self.own.next_seq
        order = wire.NewOrderSingle(
            cl_ord_id=number, price=10, order_qty=1, instrument_id=PAIR, side=side,
            ord_type=wire.OrdType.LIMIT, time_in_force=wire.TimeInForce.GTC,
        )  # fmt: skip
        _, frame = self.own.add(order, 0)
        if self.established:
            self._out += frame
        return number

    def write(self, count: int) -> None:
        """Send at most so many bytes: a cut may come behind any of them."""
        if self._socket is None or not self._out:
            return
        try:
            sent = self._socket.send(self._out[:count])
        except BlockingIOError:
            return
        except OSError:
            self.cut(abandon=False)
            return
        for _ in self._sent.raw(self._out[:sent]):
            pass
        self.sent_bytes += sent
        self._out = self._out[sent:]

    def read(self, count: int = 65536) -> None:
        """Hear at most so many bytes."""
        if self._socket is None or count == 0:
            return
        self.refused_directly |= set(self.world.direct)
        self.world.direct.clear()
        try:
            data = self._socket.recv(count)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.cut(abandon=False)
            return
        self.heard_bytes += len(data)
        for header, block in self._reader.raw(data):
            if self._socket is None:
                return
            self._take(header.partition, header.seq_num, decode_block(header.template_id, header.block_length, block))

    def _take(self, partition: int, number: int, message: WireMessage) -> None:
        if isinstance(message, wire.NegotiateResponse):
            self._negotiated = True
            self._log_on()
        elif isinstance(message, wire.NegotiateReject):
            # Negotiated, and the answer was lost: the version is ours.
            self._negotiated |= message.code == wire.NegotiateRejectCode.DUPLICATE_ID
            self.cut(abandon=False)
        elif isinstance(message, wire.EstablishReject):
            if message.code == wire.EstablishRejectCode.NEXT_SEQ_NO:
                self.failed = "the exchange has more of our requests than we made"
            self._negotiated &= message.code != wire.EstablishRejectCode.UNNEGOTIATED
            self.cut(abandon=False)
        elif isinstance(message, wire.Terminate):
            self.cut(abandon=False)
        elif isinstance(message, wire.EstablishAck):
            self.established = True
            self.own.taken(message.last_incoming_seq_no)
            self._resend(message.last_incoming_seq_no + 1)
            self._bound(0, message.next_seq_no)
        elif isinstance(message, wire.SessionBound):
            self._bound(partition, message.next_seq_no)
        elif isinstance(message, wire.NotApplied):
            self._resend(message.from_seq_no)
        elif isinstance(message, wire.RetransmitReject):
            self._asked.discard(partition)
        elif number:
            self.received[partition] += self.flows[partition].add(number, message)
            self.own.taken(getattr(message, "ref_seq_num", 0))
            self._ask(partition)

    def _resend(self, first: int) -> None:
        frames = self.own.resend(first)
        self.requests_resent += len(frames)
        self._out += b"".join(frame for n, frame in enumerate(frames, first) if n not in self.refused_directly)

    def _bound(self, partition: int, next_number: int) -> None:
        if next_number < self.flows[partition].expected:
            self.failed = f"partition {partition} goes on at {next_number}, before what we have heard"
        self.flows[partition].bound(next_number)
        self._ask(partition)

    def _ask(self, partition: int) -> None:
        flow = self.flows[partition]
        if not flow.missing or (partition in self._asked and not flow.progressed()):
            return
        self._asked.add(partition)
        request = wire.RetransmitRequest(session_id=SESSION, count=flow.missing, from_seq_no=flow.expected)
        flow.asked(request.count)
        self.reports_asked += request.count
        self._out += encode_frame(request, partition=partition)

    @property
    def answered(self) -> Counter[int]:
        """How often each request was answered."""
        answers: Counter[int] = Counter()
        for messages in self.received.values():
            answers.update(message.ref_seq_num for message in messages)  # type: ignore[attr-defined]
        return answers


def history(world: World, partition: int) -> list[bytes]:
    """Return the blocks of the session's numbered reports of a partition, as the exchange has them."""
    ring = world.reports[partition]
    slots = REPORT_SLOT.iter_unpack(ring.read(0, ring.published)) if ring.published else iter(())
    return [fields[10] for fields in slots if fields[0] == SESSION and fields[7]]
