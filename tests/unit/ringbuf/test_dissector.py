"""docs/bullring.lua in a real tshark: what we encode is what an operator sees.

tshark comes from PATH or the variable TSHARK; without it these tests are skipped.
"""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ringbuf.wire import generate
from ringbuf.wire.codec import encode_frame
from ringbuf.wire.market_codec import encode_market
from ringbuf.wire.market_messages import EventFlags, OrderAdd
from ringbuf.wire.messages import ExecInst, NewOrderSingle, OrdType, Side, TimeInForce

REPO = Path(generate.__file__).resolve().parents[2]
TSHARK = shutil.which(os.environ.get("TSHARK", "tshark"))
LINKTYPE_RAW_IP = 101
OE_PORT, SOUP_PORT, MOLD_PORT, CLIENT_PORT = 9100, 9300, 9400, 45001
TCP, UDP = 6, 17

pytestmark = pytest.mark.skipif(TSHARK is None, reason="tshark is not installed (nor named by TSHARK)")

ORDER = NewOrderSingle(
    cl_ord_id=77,
    price=-5,
    order_qty=9,
    instrument_id=3,
    exec_inst=ExecInst.POST_ONLY | ExecInst.HIDDEN,
    side=Side.SELL,
    ord_type=OrdType.LIMIT,
    time_in_force=TimeInForce.GTC,
)
ADD = OrderAdd(order_id=12, price=-3, qty=4, side=Side.SELL, event_flags=EventFlags.END_OF_EVENT)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder everyone may read: a tshark run by root loads no scripts, so it is run as nobody."""
    path = Path(tempfile.mkdtemp(prefix="bullring-tshark-"))
    path.chmod(0o755)
    shutil.copyfile(REPO / "docs" / "bullring.lua", path / "bullring.lua")
    yield path
    shutil.rmtree(path)


def ip_packet(protocol: int, payload: bytes) -> bytes:
    header = struct.pack(
        ">BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), 1, 0, 64, protocol, 0, b"\x7f\0\0\1", b"\x7f\0\0\1"
    )
    return header + payload


def tcp(port: int, sequence: int, data: bytes) -> bytes:
    return ip_packet(TCP, struct.pack(">HHIIBBHHH", CLIENT_PORT, port, sequence, 1, 0x50, 0x18, 8192, 0, 0) + data)


def udp(port: int, data: bytes) -> bytes:
    return ip_packet(UDP, struct.pack(">HHHH", CLIENT_PORT, port, 8 + len(data), 0) + data)


def drop_root() -> None:
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.setgroups([])
        os.setgid(nobody.pw_gid)
        os.setuid(nobody.pw_uid)


def tshark(folder: Path, packets: list[bytes], *arguments: str) -> list[str]:
    capture = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, LINKTYPE_RAW_IP)
    for second, packet in enumerate(packets):
        capture += struct.pack("<IIII", second, 0, len(packet), len(packet)) + packet
    (folder / "in.pcap").write_bytes(capture)
    script = f"lua_script:{folder / 'bullring.lua'}"
    assert TSHARK is not None
    finished = subprocess.run(
        [TSHARK, "-X", script, "-r", str(folder / "in.pcap"), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "HOME": str(folder)},
        preexec_fn=drop_root,
        cwd=folder,
    )
    assert finished.returncode == 0, finished.stderr
    assert "Lua: Error" not in finished.stderr
    return finished.stdout.splitlines()


def fields(*names: str) -> list[str]:
    return ["-T", "fields", *(part for name in names for part in ("-e", name))]


def test_frames_split_over_segments_are_put_together(folder: Path) -> None:
    stream = encode_frame(ORDER, seq_num=5) + encode_frame(ORDER, seq_num=6)
    cuts = [0, 3, 40, 150, len(stream)]
    packets = [tcp(OE_PORT, 1 + a, stream[a:b]) for a, b in itertools.pairwise(cuts)]

    rows = tshark(folder, packets, *fields("bullring_oe.seq_num", "bullring_oe.cl_ord_id", "bullring_oe.price"))

    assert [row.split("\t") for row in rows if row.strip()] == [["5", "77", "-5"], ["6", "77", "-5"]]


def test_names_of_enums_flags_and_nulls_are_shown(folder: Path) -> None:
    text = "\n".join(tshark(folder, [tcp(OE_PORT, 1, encode_frame(ORDER, partition=2))], "-O", "bullring_oe"))

    for line in (
        "templateId: NewOrderSingle (100)",
        "partition: 2",
        "side: Sell (2)",
        "ordType: Limit (2)",
        "execInst: 0x00000005 (PostOnly | Hidden)",
        "displayQty: -9223372036854775808 (absent)",
    ):
        assert line in text
    assert "not zero" not in text
    assert "Malformed" not in text


def test_the_port_is_a_preference(folder: Path) -> None:
    packets = [tcp(OE_PORT + 1, 1, encode_frame(ORDER))]
    wanted = fields("bullring_oe.cl_ord_id")

    assert tshark(folder, packets, *wanted) == [""]
    assert tshark(folder, packets, "-o", f"bullring_oe.port:{OE_PORT + 1}", *wanted) == ["77"]


def test_padding_and_bad_frames_are_marked(folder: Path) -> None:
    padded = bytearray(encode_frame(ORDER))
    padded[32 + 47] = 1
    stray = tcp(OE_PORT, 1, b"GET / HTTP/1.0\r\n\r\n" + bytes(40))

    assert "pad0 is not zero" in "\n".join(tshark(folder, [tcp(OE_PORT, 1, bytes(padded))], "-O", "bullring_oe"))
    assert "Malformed frame" in "\n".join(tshark(folder, [stray], "-O", "bullring_oe"))


def test_market_data_in_soupbintcp(folder: Path) -> None:
    message = encode_market(ADD)
    packet = tcp(SOUP_PORT, 1, struct.pack(">Hc", 1 + len(message), b"S") + message)

    rows = tshark(
        folder, [packet], "-d", f"tcp.port=={SOUP_PORT},soupbintcp", *fields("bullring_md.order_id", "bullring_md.side")
    )

    assert rows == ["12\t2"]


def test_market_data_in_moldudp64(folder: Path) -> None:
    message = encode_market(ADD)
    block = struct.pack(">H", len(message)) + message
    packet = udp(MOLD_PORT, b"BR00100001" + struct.pack(">QH", 5, 2) + block * 2)
    decode_as = ["-d", f"udp.port=={MOLD_PORT},moldudp64", "-d", "moldudp64.payload,bullring_md"]

    rows = tshark(folder, [packet], *decode_as, *fields("moldudp64.msgseq", "bullring_md.price"))

    assert rows == ["5,6\t-3,-3"]
