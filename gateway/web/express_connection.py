"""A connection of aiohttp's server that looks at what it reads first: plain orders take the short way (express.py).

All other bytes go on to aiohttp unchanged. aiohttp must never be handed the middle of a request, nor the short way the
middle of a body: a connection whose requests do not come one at a time and whole, as far as can be seen from outside,
stays with aiohttp for good.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from gateway.web.express import HEAD_END, ExpressLane, ExpressOrder
from gateway.web.plain_order import START

HELD_S = 1.0  # how long the rest of a request is waited for before aiohttp gets what there is
HELD_BYTES_MAX = 8192
_SIZE = re.compile(rb"\r\ncontent-length[ \t]*:[ \t]*([0-9]{1,9})[ \t]*\r\n")
_BEYOND = (b"transfer-encoding", b"upgrade", b"expect")  # a head that has one: what follows is not simply a body


def is_whole(data: bytes) -> bool:
    """Whether it is certainly one whole request and nothing more, read as strictly as any parser might."""
    end = data.find(HEAD_END)
    if end < 0:
        return False
    head = data[: end + 2].lower()
    if any(word in head for word in _BEYOND):
        return False
    sizes = head.count(b"content-length")
    if sizes == 0:
        return end + 4 == len(data)
    found = _SIZE.search(head)
    return sizes == 1 and found is not None and end + 4 + int(found.group(1)) == len(data)


class ExpressConnection(RequestHandler):
    """A connection of aiohttp's server, with a look at what comes before aiohttp reads it."""

    __slots__ = ("_address", "_answered", "_held", "_lane", "_later", "_order", "_timer", "_whole")

    def __init__(self, lane: ExpressLane, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._lane = lane
        self._whole = True  # all that aiohttp has been given were whole requests
        self._order: ExpressOrder | None = None
        self._held = b""  # the beginning of a request
        self._later = b""  # came while an order was under way
        self._timer: asyncio.TimerHandle | None = None
        self._answered: asyncio.Future[None] | None = None
        self._address = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        self._address = str(peer[0]) if isinstance(peer, tuple) else ""

    def connection_lost(self, exc: BaseException | None) -> None:
        self._order = None  # its answer has nowhere to go
        self._settle()
        self._let_go()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._order is not None:
            self._later += data
            if self.transport is not None:
                self.transport.pause_reading()
            return
        if self._held:
            data = self._let_go() + data
        if not (self._whole and data.startswith(START) and self._idle()):
            self._pass(data)
            return
        self._order = self._lane.take(data, self._address, self)
        if self._order is not None:
            self._request_count += 1
        elif len(data) < HELD_BYTES_MAX and self._lane.missing(data) > 0:
            self._held = data
            self._timer = self._loop.call_later(HELD_S, self._give_up)
        else:
            self._pass(data)

    def answer(self, order: ExpressOrder, data: bytes) -> None:
        """Write the answer of an order, and go on."""
        if self._order is not order or self.transport is None:
            return
        self._order = None
        self.transport.write(data)
        self._settle()
        if order.close:
            self.force_close()
            return
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        if self._later:
            later, self._later = self._later, b""
            self.transport.resume_reading()
            self.data_received(later)

    async def shutdown(self, timeout: float | None = 15.0) -> None:
        if self._order is not None:
            self._answered = self._loop.create_future()
            await asyncio.wait([self._answered], timeout=timeout)
        await super().shutdown(timeout)

    def _settle(self) -> None:
        """Nothing is under way any more: whoever shuts down need not wait."""
        if self._answered is not None and not self._answered.done():
            self._answered.set_result(None)

    def _idle(self) -> bool:
        """Whether aiohttp waits for the head of a request."""
        waiter = self._waiter
        waits = self._request_count == 0 if waiter is None else not waiter.done()
        return (
            waits and self._payload_parser is None and not self._upgraded
            and not self._paused and not self._close and not self._force_close
        )  # fmt: skip

    def _pass(self, data: bytes) -> None:
        if data:  # aiohttp asks itself with nothing for what it has kept
            self._whole = self._whole and is_whole(data)
        super().data_received(data)

    def _give_up(self) -> None:
        """The rest has not come: it is aiohttp's to wait for it."""
        self._pass(self._let_go())

    def _let_go(self) -> bytes:
        held, self._held = self._held, b""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return held


class ExpressSite(web.TCPSite):
    """A TCP site whose connections have the short way."""

    def __init__(self, runner: web.AppRunner, lane: ExpressLane, host: str, port: int, **options: Any) -> None:
        super().__init__(runner, host, port, **options)
        self._lane = lane

    async def start(self) -> None:
        await web.BaseSite.start(self)
        server, loop = self._runner.server, asyncio.get_running_loop()
        assert server is not None
        self._server = await loop.create_server(
            lambda: ExpressConnection(self._lane, server, loop=loop, **server._kwargs), self._host, self._port,
            ssl=self._ssl_context, backlog=self._backlog, reuse_port=self._reuse_port,
        )  # fmt: skip
