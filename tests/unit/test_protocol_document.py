"""The worked example of docs/PROTOCOL.md: its bytes are made again, its reports are what the engine really answers.

`python -m tests.unit.test_protocol_document` prints the blocks as the document must have them.
"""

import hashlib
import hmac
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.auth import BadSignature, hmac_secret, verify
from ringbuf.wire import messages as wire
from ringbuf.wire.codec import FRAME_HEADER_SIZE, decode_frame, encode_frame
from ringbuf.wire.schema import load
from tests.kit.documents import bitcoin_exchange, fenced

ROOT = Path(__file__).parents[2]
LOG_RECORDS = range(300, 323)
CODES = (
    "RejectCode",
    "CancelReason",
    "TerminateCode",
    "NegotiateRejectCode",
    "EstablishRejectCode",
    "RetransmitRejectCode",
)
T0 = 1_700_000_000_000_000_000
SEED = bytes(range(32))
SEAL_KEY = bytes(range(0x40, 0x60))
SALT = bytes(range(0x80, 0xA0))
HMAC_KEY_ID = "DESK-1-HMAC"
SIGNATURE_OFFSET = {wire.Negotiate.TEMPLATE_ID: 112, wire.Establish.TEMPLATE_ID: 110}


@dataclass(frozen=True)
class Example:
    """One frame of the document."""

    direction: str
    frame: bytes

    def render(self) -> str:
        """Return the frame as the document shows it: headline, bytes by offset, decoded fields."""
        header, message = decode_frame(self.frame)
        headline = f"{self.direction} {type(message).__name__} ({header.template_id}), {len(self.frame)} bytes"
        lines = [headline, *hex_lines(self.frame)]
        lines.append(f"  header: flags={header.flags} seqNum={header.seq_num} sendingTime={header.sending_time}")
        fields = [f"{camel(name)}={shown(getattr(message, name))}" for name, _, _ in message.COLUMNS]
        return "\n".join([*lines, *wrapped("  block:", fields)])


def hex_lines(data: bytes) -> list[str]:
    return [f"  {offset:3}  {data[offset : offset + 16].hex(' ', 4)}" for offset in range(0, len(data), 16)]


def wrapped(head: str, fields: list[str], width: int = 112) -> list[str]:
    lines = [head]
    for field in fields:
        if len(lines[-1]) + len(field) + 1 > width:
            lines.append("        ")
        lines[-1] += f" {field}"
    return lines


def camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def shown(value: Any) -> str:
    if value is None:
        return "absent"
    if isinstance(value, bytes):
        return f"{value[:4].hex()}...{value[-2:].hex()}"
    if isinstance(value, str):
        return f'"{value}"'
    return f"{value.name}({int(value)})" if hasattr(value, "name") else str(value)


def signed_ed25519(message: wire.Negotiate) -> bytes:
    frame = encode_frame(message, sending_time=T0)
    end = SIGNATURE_OFFSET[message.TEMPLATE_ID]
    signature = Ed25519PrivateKey.from_private_bytes(SEED).sign(frame[6:end])
    return frame[:end] + signature + frame[end + 64 :]


def signed_hmac(message: wire.Establish) -> bytes:
    frame = encode_frame(message, sending_time=T0)
    end = SIGNATURE_OFFSET[message.TEMPLATE_ID]
    secret = hmac.digest(SEAL_KEY, b"bullring-hmac" + HMAC_KEY_ID.encode().ljust(32, b"\0") + SALT, hashlib.sha256)
    signature = hmac.digest(secret, frame[6:end], hashlib.sha256)
    return frame[:end] + signature.ljust(64, b"\0") + frame[end + 64 :]


def logon() -> list[Example]:
    negotiate = wire.Negotiate(
        session_id=2,
        credential_type=wire.CredentialType.ED25519,
        session_ver_id=1,
        timestamp=T0,
        access_key_id="DESK-1",
        client_app_name="example",
        client_app_version="1.0",
    )
    response = wire.NegotiateResponse(
        session_id=2,
        session_ver_id=1,
        request_timestamp=T0,
        throttle_interval_ms=1000,
        max_open_orders=65536,
        max_retransmit_count=10_000,
        min_keep_alive_ms=250,
        max_keep_alive_ms=60_000,
    )
    establish = wire.Establish(
        session_id=2,
        keep_alive_interval_ms=1000,
        session_ver_id=1,
        timestamp=T0 + 1,
        next_seq_no=1,
        recover_from_seq_no=0,
        cod_timeout_ms=0,
        cod_type=wire.CodType.NEVER,
        credential_type=wire.CredentialType.HMAC_SHA256,
        access_key_id=HMAC_KEY_ID,
    )
    ack = wire.EstablishAck(
        session_id=2,
        keep_alive_interval_ms=1000,
        session_ver_id=1,
        request_timestamp=T0 + 1,
        next_seq_no=1,
        last_incoming_seq_no=0,
        oldest_recoverable_seq_no=1,
    )
    bound = wire.SessionBound(
        session_ver_id=1,
        next_seq_no=1,
        transact_time=T0 + 5,
        request_timestamp=T0 + 1,
        session_id=2,
        connection_id=1,
        code=wire.EstablishRejectCode.NONE,
        partition=1,
    )
    return [
        Example("client", signed_ed25519(negotiate)),
        Example("server", encode_frame(response, sending_time=T0)),
        Example("client", signed_hmac(establish)),
        Example("server", encode_frame(ack, sending_time=T0)),
        Example("server", encode_frame(bound, sending_time=T0, partition=1)),
    ]


def requests() -> list[tuple[int, Any]]:
    """Return (session, message): session 2 offers, session 3 buys part of it, session 2 cancels the rest."""
    sell = wire.NewOrderSingle(
        cl_ord_id=1001,
        price=4_299_999,
        order_qty=250,
        client_tag=7,
        instrument_id=1,
        side=wire.Side.SELL,
        ord_type=wire.OrdType.LIMIT,
        time_in_force=wire.TimeInForce.GTC,
        stp_mode=wire.StpMode.CANCEL_TAKER,
        exec_inst=wire.ExecInst.POST_ONLY,
    )
    buy = wire.NewOrderSingle(
        cl_ord_id=1,
        price=4_300_000,
        order_qty=101,
        instrument_id=1,
        side=wire.Side.BUY,
        ord_type=wire.OrdType.LIMIT,
        time_in_force=wire.TimeInForce.IOC,
    )
    cancel = wire.OrderCancelRequest(cl_ord_id=1002, orig_cl_ord_id=1001, instrument_id=1)
    return [(2, sell), (3, buy), (2, cancel)]


def trading() -> list[Example]:
    """Return the frames session 2 sends and gets. Its reports come out of the engine."""
    exchange = bitcoin_exchange()
    assert exchange.sessions == {}
    assert exchange.account(base=1_000_000) == 1
    assert exchange.account(quote=100_000_000_000) == 2
    assert exchange.sessions == {1: 2, 2: 3}
    examples = []
    numbers = {2: 0, 3: 0}
    for session, message in requests():
        numbers[session] += 1
        if session == 2:
            examples.append(Example("client", encode_frame(message, seq_num=numbers[session], sending_time=T0)))
        for output in exchange.engine.submit(session, message):
            if output.session == 2:
                frame = encode_frame(
                    output.message, seq_num=output.seq_num, partition=output.partition, sending_time=T0
                )
                examples.append(Example("server", frame))
    return examples


def upkeep() -> list[Example]:
    heartbeat = wire.Sequence(next_seq_no=3)
    not_applied = wire.NotApplied(from_seq_no=3, count=1)
    request = wire.RetransmitRequest(session_id=2, count=2, timestamp=T0 + 9, from_seq_no=2)
    answer = wire.Retransmission(session_id=2, count=2, request_timestamp=T0 + 9, next_seq_no=2)
    return [
        Example("client", encode_frame(heartbeat, sending_time=T0)),
        Example("server", encode_frame(not_applied, sending_time=T0)),
        Example("client", encode_frame(request, partition=1, sending_time=T0)),
        Example("server", encode_frame(answer, partition=1, sending_time=T0)),
    ]


def all_examples() -> list[Example]:
    return [*logon(), *trading(), *upkeep()]


def test_every_frame_of_the_document_is_made_again_byte_by_byte() -> None:
    expected = [example.render() for example in all_examples()]

    assert fenced("PROTOCOL.md", "frame") == expected


def test_bytes_shown_decode_without_our_header_code() -> None:
    """The prefix is read at the offsets the document gives, not by the codec."""
    for shown_block in fenced("PROTOCOL.md", "frame"):
        rows = [line for line in shown_block.split("\n") if line[:5].strip().isdigit()]
        data = bytes.fromhex("".join(row[5:] for row in rows))

        assert int.from_bytes(data[0:4], "little") == len(data)
        assert data[4:6] == b"\x50\xeb"
        assert int.from_bytes(data[6:8], "little") == len(data) - FRAME_HEADER_SIZE
        assert int.from_bytes(data[10:12], "little") == 1001


def test_key_material_of_the_document_is_that_of_its_signatures() -> None:
    public = Ed25519PrivateKey.from_private_bytes(SEED).public_key().public_bytes_raw()
    text = "\n".join(fenced("PROTOCOL.md", "keys"))

    for value in (SEED, public, SEAL_KEY, SALT, hmac_secret(SEAL_KEY, HMAC_KEY_ID, SALT)):
        assert value.hex() in text


@pytest.mark.parametrize("changed", [None, 6, 20, 40, 109])
def test_gateway_accepts_the_signatures_of_the_document_and_no_changed_byte(changed: int | None) -> None:
    negotiate, _, establish, *_ = logon()
    public = Ed25519PrivateKey.from_private_bytes(SEED).public_key().public_bytes_raw()
    keys = [(negotiate, "DESK-1", public, 1), (establish, HMAC_KEY_ID, SALT, 0)]
    for example, key_id, material, credential in keys:
        frame = bytearray(example.frame)
        if changed is not None:
            frame[changed] ^= 1
        arguments: Any = {
            "template": int.from_bytes(example.frame[8:10], "little"),
            "frame": bytes(frame),
            "credential": credential,
            "access_key_id": key_id,
            "material": material,
            "seal_key": SEAL_KEY,
        }
        if changed is None:
            verify(**arguments)
        else:
            with pytest.raises(BadSignature):
                verify(**arguments)


def unnamed(text: str) -> list[str]:
    """Return the messages and codes that may be on a connection and that `text` says nothing about."""
    schema = load(ROOT / "ringbuf/wire/orders.xml")
    names = [message.name for message in schema.messages if message.id not in LOG_RECORDS]
    names += [f"{kind}.{name}" for kind in CODES for name, _ in schema.enums[kind].values]
    words = set(re.findall(r"\w+", text))
    return [name for name in names if name.rpartition(".")[2] not in words]


def test_every_message_and_code_is_explained() -> None:
    text = "".join((ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("PROTOCOL.md", "MATCHING.md"))

    assert unnamed(text) == []
    assert unnamed(re.sub(r"\bQuarantined\b|\bAuctionInfo\b", "", text)) == [
        "AuctionInfo",
        "RejectCode.Quarantined",
        "CancelReason.Quarantined",
    ]


def test_the_range_of_every_kind_of_template_is_the_schemas() -> None:
    text = (ROOT / "docs/PROTOCOL.md").read_text(encoding="utf-8")
    listed = [range(int(low), int(high) + 1) for low, high in re.findall(r"(\d+)\.\.(\d+) (?:[a-z]+)", section(text))]
    known = sorted(message.id for message in load(ROOT / "ringbuf/wire/orders.xml").messages)

    assert [number for number in known if not any(number in numbers for numbers in listed)] == []
    assert all(numbers[0] in known and numbers[-1] in known for numbers in listed)


def section(text: str) -> str:
    begin = text.index("Template numbers:")
    return text[begin : text.index("\n\n", begin)]


if __name__ == "__main__":
    for shown_example in all_examples():
        print(f"```frame\n{shown_example.render()}\n```\n")
