"""Order entry in asyncio: log on, trade, read reports in order, and carry on after a lost connection.

Own requests are kept until a report shows that they were taken, and sent again with possResend after a reconnect. Gaps
of reports are asked for and filled: `reports()` yields every report once and in the order of its partition.
"""

import asyncio
import contextlib
import itertools
import os
import ssl
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

from gateway.clients.python.flow import OwnFlow, ReportFlow
from gateway.clients.python.orders import GROUP_FRAMES_MAX
from gateway.clients.python.requests import Requests
from gateway.clients.python.signing import Signer, signed_frame
from ringbuf.wire.base import WireMessage
from ringbuf.wire.codec import (
    DecodingError,
    FrameHeader,
    FrameReader,
    UnknownTemplate,
    decode_block,
    encode_frame,
)
from ringbuf.wire.messages import (
    AssetQuery,
    AssetReply,
    BalanceQuery,
    BalanceReply,
    CodType,
    Establish,
    EstablishAck,
    EstablishReject,
    EstablishRejectCode,
    InstrumentQuery,
    InstrumentReply,
    Negotiate,
    NegotiateReject,
    NegotiateRejectCode,
    NegotiateResponse,
    NotApplied,
    OpenOrdersQuery,
    OrderReply,
    QueryEnd,
    RejectCode,
    Retransmission,
    RetransmitReject,
    RetransmitRequest,
    SessionBound,
    Terminate,
    TerminateCode,
)
from ringbuf.wire.messages import Sequence as SequenceMessage

Reply = TypeVar("Reply", bound=WireMessage)
RETRANSMIT_MAX = 1000  # reports asked for at a time
RECONNECT_FIRST_S = 0.05
RECONNECT_LAST_S = 1.0
RECONNECT_EAGER_S = 3.0  # so long a failover may take: no longer pauses before that


class LogonRefused(Exception):
    """Negotiate or Establish was rejected; `code` says why."""

    def __init__(self, code: NegotiateRejectCode | EstablishRejectCode | int, expected: int = 0) -> None:
        super().__init__(code.name if hasattr(code, "name") else str(code))
        self.code = code
        self.expected = expected


class QueryRefused(Exception):
    """A query was refused; `code` says why."""

    def __init__(self, code: RejectCode | int) -> None:
        super().__init__(code.name if isinstance(code, RejectCode) else str(code))
        self.code = code


class SessionLost(ConnectionError):
    """The session cannot be carried on: ended by the other side, taken over, or reconnecting is off."""

    def __init__(self, why: str, code: TerminateCode | int | None = None) -> None:
        super().__init__(why)
        self.code = code


@dataclass(frozen=True, slots=True)
class Report:
    """One numbered report (seq_num > 0) or an unnumbered event of the session."""

    partition: int
    seq_num: int
    message: WireMessage
    retransmitted: bool = False


@dataclass(frozen=True, slots=True)
class ReportGap:
    """Reports the exchange could not send again: numbers from_seq_num.. are missing for good."""

    partition: int
    from_seq_num: int
    count: int


class BullringClient(Requests):
    """One session. Use: `await start()`, then send requests (they return their number) and iterate `reports()`."""

    def __init__(
        self,
        addresses: Sequence[tuple[str, int]],
        *,
        session_id: int,
        signer: Signer,
        keep_alive_ms: int = 1000,
        keep_alive_lives: int = 3,
        cod_type: CodType = CodType.NEVER,
        cod_timeout_ms: int = 0,
        resume: bool = True,
        timeout_s: float = 10.0,
        wall_ns: Callable[[], int] = time.time_ns,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`addresses`: of all nodes; whichever leads takes the session.

        A connection that is silent for `keep_alive_lives` times `keep_alive_ms` is lost.
        """
        self.session_id = session_id
        self.session_ver_id = 0
        self._addresses = list(addresses)
        self._signer = signer
        self._keep_alive_ms = keep_alive_ms
        self._keep_alive_lives = keep_alive_lives
        self._cod = (cod_type, cod_timeout_ms)
        self._resume = resume
        self._timeout_s = timeout_s
        self._wall_ns = wall_ns
        self._tls = tls
        self._last_stamp = 0
        self._own = OwnFlow()
        self._flows: dict[int, ReportFlow[Report]] = {}
        self._asked: set[int] = set()  # partitions with a RetransmitRequest under way
        self._reports: asyncio.Queue[Report | ReportGap | SessionLost] = asyncio.Queue()
        self._queries: dict[int, tuple[list[WireMessage], asyncio.Future[list[WireMessage]]]] = {}
        self._request_ids = itertools.count(1)
        self._link: _Link | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._established = False
        self._closing = False
        self.reconnects = 0

    # --- the session ------------------------------------------------------------------------------------------------

    async def start(self) -> EstablishAck:
        """Connect, open a new version of the session and bind it, at whichever address leads.

        Raises ConnectionError or LogonRefused; that no node leads yet is waited for.
        """
        deadline = asyncio.get_running_loop().time() + self._timeout_s
        error: OSError | LogonRefused = ConnectionError("no addresses")
        while True:
            for host, port in self._addresses:
                try:
                    self._adopt(await self._link_to(host, port))
                    await self.negotiate()
                    return await self.establish()
                except LogonRefused as refused:
                    if refused.code not in (NegotiateRejectCode.NOT_READY, EstablishRejectCode.NOT_READY):
                        raise
                    error = refused
                except OSError as lost:
                    error = lost
            if len(self._addresses) == 1 or asyncio.get_running_loop().time() > deadline:
                raise error
            await asyncio.sleep(RECONNECT_FIRST_S)

    async def connect(self) -> None:
        """Connect to the first address that answers. Raises ConnectionError."""
        attempts = [asyncio.create_task(self._link_to(*address)) for address in self._addresses]
        errors = []
        try:
            for attempt in asyncio.as_completed(attempts, timeout=self._timeout_s):
                try:
                    self._adopt(await attempt)
                    return
                except OSError as error:
                    errors.append(str(error) or f"no answer within {self._timeout_s} s")
        finally:
            await self._give_up(attempts)
        raise ConnectionError("; ".join(errors))

    async def _link_to(self, host: str, port: int) -> "_Link":
        loop = asyncio.get_running_loop()
        try:
            _, link = await loop.create_connection(lambda: _Link(self), host, port, ssl=self._tls)
        except OSError as error:
            # asyncio says number and address once more; of a name or of TLS its own words are what counts.
            number = error.errno if isinstance(error, ConnectionError) else None
            raise ConnectionError(f"{host}:{port}: {os.strerror(number) if number else error}") from error
        return link

    async def _give_up(self, attempts: "Sequence[asyncio.Task[_Link]]") -> None:
        """Cancel what is still under way, close what came too late."""
        for task in attempts:
            task.cancel()
        for link in await asyncio.gather(*attempts, return_exceptions=True):
            if isinstance(link, _Link) and link is not self._link:
                link.close()

    def _adopt(self, link: "_Link") -> None:
        self._link = link
        self._spawn(self._keep_alive(link))

    async def negotiate(self, session_ver_id: int | None = None) -> NegotiateResponse:
        """Open a new version: both flows restart at 1. Raises LogonRefused."""
        version = self._wall_ns() if session_ver_id is None else session_ver_id
        message = Negotiate(
            session_id=self.session_id,
            credential_type=self._signer.credential_type,
            session_ver_id=version,
            timestamp=self._stamp(),
            access_key_id=self._signer.access_key_id,
            client_app_name="bullring-python",
        )
        answer = await self._log_on(self._link, message)
        if isinstance(answer, NegotiateReject):
            raise LogonRefused(answer.code)
        if not isinstance(answer, NegotiateResponse):
            raise SessionLost(f"unexpected {type(answer).__name__}")
        self.session_ver_id = version
        self._own.restart()
        self._flows.clear()
        return answer

    async def establish(self) -> EstablishAck:
        """Bind the session to this connection, send again what was not taken. Raises LogonRefused."""
        return await self._establish(self._link)

    async def _establish(self, link: "_Link | None") -> EstablishAck:
        message = Establish(
            session_id=self.session_id,
            keep_alive_interval_ms=self._keep_alive_ms,
            session_ver_id=self.session_ver_id,
            timestamp=self._stamp(),
            next_seq_no=self._own.next_seq,
            cod_timeout_ms=self._cod[1],
            cod_type=self._cod[0],
            credential_type=self._signer.credential_type,
            access_key_id=self._signer.access_key_id,
        )
        answer = await self._log_on(link, message)
        if isinstance(answer, EstablishReject):
            raise LogonRefused(answer.code, answer.expected_seq_no)
        if not isinstance(answer, EstablishAck):
            raise SessionLost(f"unexpected {type(answer).__name__}")
        return answer

    async def close(self) -> None:
        """Say goodbye and disconnect; open orders stay unless cancel-on-disconnect was asked for."""
        self._closing = True
        if self._link is not None and self._link.open:
            self._link.send(encode_frame(Terminate(session_id=self.session_id, session_ver_id=self.session_ver_id)))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._link.closed.wait()
            self._link.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def __aenter__(self) -> "BullringClient":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def established(self) -> bool:
        """Whether requests reach the exchange now; if not they wait for the reconnect."""
        return self._established

    # --- requests: each returns its number --------------------------------------------------------------------------

    def send(self, message: WireMessage) -> int:
        """Number and send any request. Without a connection it is sent after the reconnect."""
        return self.send_group([message])[0]

    def send_group(self, messages: Sequence[WireMessage]) -> list[int]:
        """Number and send requests that are one command, linked if several. Raises ValueError for too many."""
        if not 1 <= len(messages) <= GROUP_FRAMES_MAX:
            raise ValueError(f"{len(messages)} linked requests: must be 1 to {GROUP_FRAMES_MAX}")
        numbers, frames = [], []
        for left, message in zip(range(len(messages) - 1, -1, -1), messages, strict=True):
            seq_num, frame = self._own.add(message, self._wall_ns(), more=left > 0)
            numbers.append(seq_num)
            frames.append(frame)
        if self._established and self._link is not None:
            self._link.send(b"".join(frames))
        return numbers

    # --- queries ----------------------------------------------------------------------------------------------------

    async def balances(self, asset_id: int = 0) -> list[BalanceReply]:
        return await self._of_kind(BalanceReply, BalanceQuery(request_id=self._request(), asset_id=asset_id))

    async def instruments(self, instrument_id: int = 0) -> list[InstrumentReply]:
        message = InstrumentQuery(request_id=self._request(), instrument_id=instrument_id)
        return await self._of_kind(InstrumentReply, message)

    async def assets(self, asset_id: int = 0) -> list[AssetReply]:
        return await self._of_kind(AssetReply, AssetQuery(request_id=self._request(), asset_id=asset_id))

    async def open_orders(self, instrument_id: int = 0) -> list[OrderReply]:
        """Return the first page of the account's open orders."""
        message = OpenOrdersQuery(request_id=self._request(), instrument_id=instrument_id)
        return await self._of_kind(OrderReply, message)

    async def query(self, message: WireMessage) -> list[WireMessage]:
        """Send a query whose request_id nobody else uses; return its replies. Raises QueryRefused, SessionLost."""
        request_id: int = message.request_id  # type: ignore[attr-defined]
        if not self._established or self._link is None:
            raise SessionLost("not connected")
        done: asyncio.Future[list[WireMessage]] = asyncio.get_running_loop().create_future()
        self._queries[request_id] = ([], done)
        self._link.send(encode_frame(message, sending_time=self._wall_ns()))
        try:
            async with asyncio.timeout(self._timeout_s):
                return await done
        finally:
            self._queries.pop(request_id, None)

    async def _of_kind(self, kind: type[Reply], message: WireMessage) -> list[Reply]:
        return [reply for reply in await self.query(message) if isinstance(reply, kind)]

    def _request(self) -> int:
        return next(self._request_ids)

    # --- reports ----------------------------------------------------------------------------------------------------

    async def reports(self) -> AsyncIterator[Report | ReportGap]:
        """Yield reports, each once, in the order of its partition. Raises SessionLost when there will be no more."""
        while True:
            item = await self._reports.get()
            if isinstance(item, SessionLost):
                self._reports.put_nowait(item)
                raise item
            yield item

    # --- frames that arrive -----------------------------------------------------------------------------------------

    def _received(self, link: "_Link", header: FrameHeader, message: WireMessage) -> None:
        if isinstance(message, NegotiateResponse | NegotiateReject | EstablishAck | EstablishReject):
            if isinstance(message, EstablishAck):
                if link is not self._link:
                    self._adopt(link)
                self._bound(message)
            if link.logon is not None and not link.logon.done():
                link.logon.set_result(message)
        elif link is not self._link:
            pass  # a connection that is not the session's
        elif isinstance(message, SessionBound):
            self._partition_bound(header.partition, message.next_seq_no)
        elif header.seq_num > 0:
            self._numbered(header, message)
        else:
            self._unnumbered(header, message)

    def _bound(self, ack: EstablishAck) -> None:
        self._established = True
        self._asked.clear()
        self._own.taken(ack.last_incoming_seq_no)
        self._partition_bound(0, ack.next_seq_no)
        if self._link is not None:
            for frame in self._own.resend(ack.last_incoming_seq_no + 1):
                self._link.send(frame)

    def _partition_bound(self, partition: int, next_seq: int) -> None:
        flow = self._flows.setdefault(partition, ReportFlow[Report]())
        if flow.bound(next_seq):
            self._ask(partition)

    def _numbered(self, header: FrameHeader, message: WireMessage) -> None:
        flow = self._flows.setdefault(header.partition, ReportFlow[Report]())
        reference = getattr(message, "ref_seq_num", 0)
        if reference:
            self._own.taken(reference)
        report = Report(header.partition, header.seq_num, message, bool(header.flags & 1))
        for ready in flow.add(header.seq_num, report):
            self._reports.put_nowait(ready)
        if flow.missing:
            self._ask(header.partition)

    def _unnumbered(self, header: FrameHeader, message: WireMessage) -> None:
        if isinstance(message, Terminate):
            self._terminated(message)
        elif isinstance(message, SequenceMessage):
            self._partition_bound(header.partition, message.next_seq_no)
        elif isinstance(message, NotApplied):
            self._not_applied(message)
        elif isinstance(message, Retransmission):
            pass
        elif isinstance(message, RetransmitReject):
            self._retransmit_refused(header.partition)
        elif (request_id := getattr(message, "request_id", None)) in self._queries and request_id is not None:
            self._answered(request_id, message)
        else:
            self._reports.put_nowait(Report(header.partition, 0, message))

    def _answered(self, request_id: int, message: WireMessage) -> None:
        replies, done = self._queries[request_id]
        if not isinstance(message, QueryEnd):
            replies.append(message)
        elif done.done():
            return
        elif message.code != RejectCode.NONE:
            done.set_exception(QueryRefused(message.code))
        else:
            done.set_result(replies)

    def _not_applied(self, message: NotApplied) -> None:
        if self._link is not None:
            for frame in self._own.resend(message.from_seq_no):
                self._link.send(frame)

    def _ask(self, partition: int) -> None:
        flow = self._flows[partition]
        if partition in self._asked and not flow.progressed():
            return
        if not flow.missing or self._link is None or not self._established:
            self._asked.discard(partition)
            return
        self._asked.add(partition)
        request = RetransmitRequest(
            session_id=self.session_id,
            count=min(flow.missing, RETRANSMIT_MAX),
            timestamp=self._wall_ns(),
            from_seq_no=flow.expected,
        )
        flow.asked(request.count)
        self._link.send(encode_frame(request, partition=partition, sending_time=self._wall_ns()))

    def _retransmit_refused(self, partition: int) -> None:
        flow = self._flows[partition]
        self._asked.discard(partition)
        if flow.missing:
            gap = ReportGap(partition, flow.expected, flow.missing)
            self._reports.put_nowait(gap)
            for ready in flow.give_up():
                self._reports.put_nowait(ready)

    def _terminated(self, message: Terminate) -> None:
        if self._closing or message.code == TerminateCode.FINISHED:
            return
        final = (TerminateCode.SUPERSEDED, TerminateCode.CREDENTIALS_REVOKED, TerminateCode.DECODING_ERROR)
        if message.code in final:
            self._lost(SessionLost(f"terminated: {TerminateCode(message.code).name}", message.code))

    # --- connection -------------------------------------------------------------------------------------------------

    def _connection_lost(self, link: "_Link") -> None:
        if link.logon is not None and not link.logon.done():
            link.logon.set_exception(ConnectionResetError("connection lost during the logon"))
        if self._link is not link:
            return
        was_established, self._established = self._established, False
        for _, done in self._queries.values():
            if not done.done():
                done.set_exception(SessionLost("connection lost"))
        if self._closing or not was_established:
            return
        if self._resume:
            self._spawn(self._reconnect())
        else:
            self._lost(SessionLost("connection lost"))

    def _lost(self, error: SessionLost) -> None:
        self._resume = False
        self._reports.put_nowait(error)

    async def _reconnect(self) -> None:
        """Try all addresses side by side until one of them takes the session: after a failover another one leads."""
        attempts = [asyncio.create_task(self._log_on_at(*address)) for address in self._addresses]
        try:
            for attempt in asyncio.as_completed(attempts):
                await attempt
                self.reconnects += 1
                return
        except LogonRefused as error:
            self._lost(SessionLost(f"cannot be carried on: {error}"))
        finally:
            await self._give_up(attempts)

    async def _log_on_at(self, host: str, port: int) -> "_Link":
        """Connect and bind the session there, again and again. Raises LogonRefused if it never will be."""
        loop = asyncio.get_running_loop()
        began, pause_s = loop.time(), RECONNECT_FIRST_S
        again = (EstablishRejectCode.NOT_READY, EstablishRejectCode.INVALID_TIMESTAMP)
        while True:
            link = None
            try:
                link = await self._link_to(host, port)
                await self._establish(link)
                return link
            except LogonRefused as error:
                if error.code not in again:
                    raise
            except (OSError, TimeoutError):
                pass  # nobody there yet, or it went away while we asked
            finally:
                if link is not None and link is not self._link:
                    link.close()
            await asyncio.sleep(pause_s)
            if loop.time() - began > RECONNECT_EAGER_S:
                pause_s = min(2 * pause_s, RECONNECT_LAST_S)

    async def _keep_alive(self, link: "_Link") -> None:
        interval_s = self._keep_alive_ms / 1000
        loop = asyncio.get_running_loop()
        while link.open:
            await asyncio.sleep(interval_s / 4)
            now = loop.time()
            if not self._established:
                continue
            if now - link.received_at > self._keep_alive_lives * interval_s:
                link.close()
            elif now - link.sent_at >= interval_s / 2:
                link.send(encode_frame(SequenceMessage(next_seq_no=self._own.next_seq)))

    async def _log_on(self, link: "_Link | None", message: Negotiate | Establish) -> WireMessage:
        if link is None:
            raise SessionLost("not connected")
        link.logon = asyncio.get_running_loop().create_future()
        link.send(signed_frame(message, self._signer, sending_time=self._wall_ns()))
        async with asyncio.timeout(self._timeout_s):
            return await link.logon

    def _stamp(self) -> int:
        """The nonce of a logon: now, but always more than the last one of this client."""
        self._last_stamp = max(self._wall_ns(), self._last_stamp + 1)
        return self._last_stamp

    def _spawn(self, work: object) -> None:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)  # type: ignore[arg-type]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Link(asyncio.Protocol):
    """One TCP connection: bytes to frames and back."""

    def __init__(self, client: BullringClient) -> None:
        self._client = client
        self._reader = FrameReader()
        self._transport: asyncio.Transport | None = None
        self.closed = asyncio.Event()
        self.logon: asyncio.Future[WireMessage] | None = None
        self.received_at = self.sent_at = 0.0

    @property
    def open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def send(self, frame: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self.sent_at = asyncio.get_running_loop().time()
            self._transport.write(frame)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are of no class of asyncio's
        self.received_at = self.sent_at = asyncio.get_running_loop().time()

    def data_received(self, data: bytes) -> None:
        self.received_at = asyncio.get_running_loop().time()
        try:
            for header, block in self._reader.raw(data):
                with contextlib.suppress(UnknownTemplate):  # of a newer schema: not for us
                    message = decode_block(header.template_id, header.block_length, block)
                    self._client._received(self, header, message)
        except DecodingError:
            self.close()  # the stream has lost its frame borders

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()
        self._client._connection_lost(self)
