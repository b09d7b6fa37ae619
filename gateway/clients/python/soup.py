"""SoupBinTCP 3.00 for a client: log in, read sequenced messages, send unsequenced ones; heartbeats by themselves."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

LENGTH = struct.Struct(">H")
HEARTBEAT_S = 1.0
SILENCE_S = 15.0
CONNECT_S = 10.0
READ_BYTES = 1 << 18
REASONS = {"A": "not authorized", "S": "no such session or number"}


class SoupRefused(Exception):
    """The login was refused. `reason` is "A" or "S"."""

    def __init__(self, reason: str) -> None:
        super().__init__(REASONS.get(reason, reason))
        self.reason = reason


class SoupClosed(ConnectionError):
    """The server ended the connection or has gone."""


class SoupConnection:
    """One login. `next_number` is the number of the next sequenced message."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._buffer = b""
        self._beat: asyncio.Task[None] | None = None
        self.session = ""
        self.next_number = 0
        self.ended = False

    @classmethod
    async def open(
        cls, host: str, port: int, *, user: str, password: str, session: str = "", number: int = 0
    ) -> SoupConnection:
        """Connect and log in; number 0 is the next message to come. Raises SoupRefused, SoupClosed or OSError."""
        try:
            # Not wait_for(): that may swallow a cancellation (CPython 3.11), here and below.
            async with asyncio.timeout(CONNECT_S):
                reader, writer = await asyncio.open_connection(host, port, limit=READ_BYTES)
                connection = cls(reader, writer)
                login = f"{user:<6.6}{password:<10.10}{session:<10.10}{number:>20}"
                connection.send(b"L", login.encode("ascii"))
                await connection._accepted()
        except TimeoutError as error:
            raise SoupClosed(f"{host}:{port} did not answer in {CONNECT_S} s") from error
        connection._beat = asyncio.create_task(connection._heartbeats())
        return connection

    def send(self, kind: bytes, payload: bytes = b"") -> None:
        """Send one packet."""
        self._writer.write(LENGTH.pack(len(payload) + 1) + kind + payload)

    async def messages(self) -> AsyncIterator[tuple[int, bytes]]:
        """Yield (number, message) until the session ends. Raises SoupClosed."""
        while not self.ended:
            for kind, payload in self._whole():
                if kind == b"S":
                    self.next_number += 1
                    yield self.next_number - 1, payload
                self.ended |= kind == b"Z"
            if not self.ended:
                await self._read()

    async def close(self) -> None:
        """Log out and close."""
        if self._beat is not None:
            self._beat.cancel()
            self._beat = None
        if not self._writer.is_closing():
            self.send(b"O")
            self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _accepted(self) -> None:
        kind, payload = await self._packet()
        if kind == b"A" and len(payload) == 30:
            self.session = payload[:10].decode("ascii")
            self.next_number = int(payload[10:])
            return
        await self.close()
        raise SoupRefused(payload.decode("ascii", "replace") if kind == b"J" else "no answer to a login")

    async def _packet(self) -> tuple[bytes, bytes]:
        """Return the next packet; nothing must be lost of what comes behind it."""
        while True:
            for kind, payload in self._whole(limit=1):
                return kind, payload
            await self._read()

    def _whole(self, limit: int = 1 << 30) -> list[tuple[bytes, bytes]]:
        """Take whole packets out of the buffer."""
        packets: list[tuple[bytes, bytes]] = []
        at, buffer = 0, self._buffer
        while len(packets) < limit and len(buffer) >= at + LENGTH.size:
            end = at + LENGTH.size + LENGTH.unpack_from(buffer, at)[0]
            if len(buffer) < end:
                break
            packets.append((buffer[at + 2 : at + 3], buffer[at + 3 : end]))
            at = end
        self._buffer = buffer[at:]
        return packets

    async def _read(self) -> None:
        try:
            async with asyncio.timeout(SILENCE_S):
                data = await self._reader.read(READ_BYTES)
        except ConnectionError as error:
            raise SoupClosed("the connection is lost") from error
        except TimeoutError as error:
            raise SoupClosed(f"nothing heard for {SILENCE_S} s") from error
        if not data:
            raise SoupClosed("the server ended the connection")
        self._buffer += data

    async def _heartbeats(self) -> None:
        while not self._writer.is_closing():
            self.send(b"R")
            await asyncio.sleep(HEARTBEAT_S)
