"""`bullring feed record`: channels into a pcap of MoldUDP64 packets, into Parquet, or both."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from gateway.clients import Line, SoupConnection
from gateway.clients.python.arbiter import MalformedPacket, parse_packet
from gateway.clients.python.recorder import Packer, ParquetRecorder, PcapWriter
from gateway.marketdata.feed import DERIVED_BASE, REFERENCE
from scripts.arguments import duration_s, emit_one, progress
from scripts.config import Config, split_address
from scripts.exit_codes import CommandError, ExitCode
from scripts.feed.desk import Desk, add_login, answered, desk

IDLE_FLUSH_S = 0.05
DESTINATION = ("239.255.66.82", 9300)  # what recordings of TCP say: a group of the private range


class Recording:
    """The files, and what is in them so far."""

    def __init__(self, stack: ExitStack, options: argparse.Namespace, source: tuple[str, int]) -> None:
        try:
            self._pcap = (
                None
                if options.pcap is None
                else stack.enter_context(PcapWriter(options.pcap, source=source, destination=DESTINATION))
            )
            self._parquet = None if options.parquet is None else stack.enter_context(ParquetRecorder(options.parquet))
        except OSError as error:
            raise CommandError(f"cannot write {error.filename}: {error.strerror}", ExitCode.CANNOT_CREATE) from error
        self.messages = 0
        self.packets = 0

    def packet(self, data: bytes | None, destination: tuple[str, int] | None = None) -> None:
        """Add a packet to the pcap."""
        if data is not None and self._pcap is not None:
            self._pcap.write(time.time_ns(), data, destination)
            self.packets += 1

    def message(self, channel: int, number: int, data: bytes) -> None:
        """Add a message to the table."""
        self.messages += 1
        if self._parquet is not None:
            self._parquet.add(channel, number, data)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pcap", type=Path, metavar="FILE", help="packets, for tshark")
    parser.add_argument("--parquet", type=Path, metavar="FILE", help="a row a message")
    parser.add_argument(
        "--channel", type=int, action="append", default=[], metavar="N", help="repeatable; default: 1, 101, ... and 900"
    )
    parser.add_argument("--from", type=int, default=0, dest="first", metavar="NUMBER", help="first message; 0 = live")
    parser.add_argument(
        "--line", action="append", default=[], metavar="HOST:PORT", help="record UDP packets that arrive here instead"
    )
    parser.add_argument("--seconds", type=duration_s, metavar="N", help="end after this time; default: Ctrl-C")
    parser.add_argument("--messages", type=int, metavar="N", help="end after so many messages")
    add_login(parser)


async def record(options: argparse.Namespace, config: Config) -> int:
    """Record until told to end. Raises CommandError."""
    if options.pcap is None and options.parquet is None:
        raise CommandError("give --pcap FILE, --parquet FILE or both", ExitCode.USAGE)
    place = None if options.line else desk(options, config)
    source = split_address(options.line[0]) if place is None else (place.servers.host, place.servers.replay_port)
    with ExitStack() as stack:
        recording = Recording(stack, options, source)
        if place is None:
            tasks = [asyncio.create_task(_record_line(recording, text)) for text in options.line]
        else:
            channels = options.channel or await _all_channels(place)
            tasks = [
                asyncio.ensure_future(
                    answered(_record_channel(recording, place, channel, options.first), place.servers)
                )
                for channel in channels
            ]
        await _until_done(tasks, recording, options)
        facts = {"messages": recording.messages, "packets": recording.packets}
    emit_one({**facts, "pcap": _name(options.pcap), "parquet": _name(options.parquet)}, as_json=options.json)
    return ExitCode.OK


async def _all_channels(place: Desk) -> list[int]:
    partitions = sorted({each.partition for each in (await place.definitions()).values()})
    return [*partitions, *(DERIVED_BASE + partition for partition in partitions), REFERENCE]


async def _record_channel(recording: Recording, place: Desk, channel: int, first: int) -> None:
    session, number = f"BR{channel:03}", 1 if channel == REFERENCE else first
    connection = await SoupConnection.open(
        place.servers.host, place.servers.replay_port, user=place.user, password=place.password,
        session=session, number=number,
    )  # fmt: skip
    async with connection:
        packer = Packer(connection.session)
        messages = connection.messages()
        waiting = asyncio.ensure_future(anext(messages))
        try:
            while True:
                done, _ = await asyncio.wait({waiting}, timeout=IDLE_FLUSH_S)
                if not done:
                    recording.packet(packer.flush())
                    continue
                number, data = waiting.result()
                waiting = asyncio.ensure_future(anext(messages))
                recording.packet(packer.add(number, data))
                recording.message(channel, number, data)
        finally:
            waiting.cancel()
            recording.packet(packer.flush())


async def _record_line(recording: Recording, text: str) -> None:
    host, port = split_address(text)
    receiver = Line(host, port).open()
    loop = asyncio.get_running_loop()
    try:
        while True:
            data = await loop.sock_recv(receiver, 65536)
            recording.packet(data, (host, port))
            with contextlib.suppress(MalformedPacket, ValueError):
                session, first, _, messages = parse_packet(data)
                for place, message in enumerate(messages):
                    recording.message(int(session[2:5]), first + place, message)
    finally:
        receiver.close()


async def _until_done(tasks: Sequence[asyncio.Future[None]], recording: Recording, options: argparse.Namespace) -> None:
    end = None if options.seconds is None else time.monotonic() + options.seconds
    try:
        while end is None or time.monotonic() < end:
            done, _ = await asyncio.wait(tasks, timeout=IDLE_FLUSH_S, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
            if options.messages is not None and recording.messages >= options.messages:
                break
    except asyncio.CancelledError:
        progress("stopped")
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def _name(path: Path | None) -> str | None:
    return None if path is None else str(path)
