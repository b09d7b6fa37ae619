"""The schema generator: house rules, staleness, and that compiler and Python agree with the schema."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ringbuf.wire import emit_c, generate, market_messages, messages, schema

REPO = Path(generate.__file__).resolve().parents[2]
INCLUDE = REPO / "ringbuf" / "include"
STRICT = ["-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Werror", "-O2"]

needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the schemas and of everything generated from them."""
    names = [generate.ORDERS, generate.MARKETDATA, *generate.render(*load_both(REPO))]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(REPO / name, tmp_path / name)
    return tmp_path


def load_both(root: Path) -> tuple[schema.Schema, schema.Schema]:
    return schema.load(root / generate.ORDERS), schema.load(root / generate.MARKETDATA)


def test_committed_files_are_fresh() -> None:
    finished = subprocess.run(
        [sys.executable, str(REPO / "ringbuf/wire/generate.py"), "--check"], capture_output=True, text=True
    )

    assert (finished.returncode, finished.stderr) == (0, "")


@pytest.mark.parametrize("name", sorted(generate.render(*load_both(REPO))))
def test_a_changed_or_missing_output_is_named(tree: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate.main(["--check", "--root", str(tree)]) == 0

    text = (tree / name).read_text()
    (tree / name).write_text(text.replace("0", "1", 1))
    assert generate.main(["--check", "--root", str(tree)]) == 1
    assert capsys.readouterr().err == f"stale: {name}\n"

    (tree / name).unlink()
    assert generate.main(["--check", "--root", str(tree)]) == 1
    assert generate.main(["--root", str(tree)]) == 0
    assert (tree / name).read_text() == text


def test_a_changed_schema_makes_outputs_stale(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tree / generate.ORDERS
    path.write_text(path.read_text().replace('<validValue name="Transfer">5<', '<validValue name="Transfer">6<'))

    assert generate.main(["--check", "--root", str(tree)]) == 1

    stale = capsys.readouterr().err
    for name in ("orders.h", "messages.py", "bullring.lua", "PROTOCOL_TABLES.md"):
        assert name in stale


CANCEL = '<sbe:message name="OrderCancelRequest" id="101" blockLength="48"'
TICK = '<field name="now" id="1" type="TimeNs" offset="0"/>'
EPOCH_NODE = '<field name="nodeId" id="2" type="u32" offset="8"/>'
SOURCE = '<field name="source" id="2" type="u16" offset="8"/>'
SOURCE_PAD = '<field name="pad1" id="3" type="Pad2" offset="10"/>'

BAD_ORDERS = {
    "not xml": ("</sbe:messageSchema>", "", "not XML"),
    "big-endian": ('byteOrder="littleEndian"', 'byteOrder="bigEndian"', "byteOrder"),
    "duplicate template id": (CANCEL, CANCEL.replace("101", "100"), "id 100 is already NewOrderSingle"),
    "template id 0": (CANCEL, CANCEL.replace("101", "0"), "not in 1..65535"),
    "duplicate message": (CANCEL, CANCEL.replace("OrderCancelRequest", "NewOrderSingle"), "name is already used"),
    "message named as enum": (CANCEL, CANCEL.replace("OrderCancelRequest", "OrdStatus"), "name is already used"),
    "blockLength missing": (CANCEL, CANCEL.replace(' blockLength="48"', ""), "blockLength"),
    "blockLength too long": (CANCEL, CANCEL.replace('"48"', '"56"'), "fields end at 48, blockLength is 56"),
    "offset missing": (TICK, TICK.replace(' offset="0"', ""), "offset"),
    "gap": (EPOCH_NODE, EPOCH_NODE.replace('"8"', '"12"'), "gap, offset 12 instead of 8"),
    "overlap": (EPOCH_NODE, EPOCH_NODE.replace('"8"', '"4"'), "overlaps, the next free byte is 8"),
    "misaligned": (SOURCE_PAD, SOURCE_PAD.replace("Pad2", "Pad4"), "offset 10 is not aligned for uint32"),
    "unknown type": (TICK, TICK.replace("TimeNs", "TimeUs"), "unknown type TimeUs"),
    "not a multiple of 8": (
        'blockLength="8" description="time">\n    ' + TICK,
        'blockLength="12" description="time">\n    ' + TICK + '<field name="x" id="2" type="u32" offset="8"/>',
        "blockLength 12 is not a multiple of 8",
    ),
    "group": (TICK, TICK + '<group name="legs" id="9"/>', "messages are flat"),
    "var data": (TICK, TICK + '<data name="note" id="9" type="u8"/>', "messages are flat"),
    "constant field": (TICK, TICK.replace("/>", ' presence="constant"/>'), "presence belongs on the type"),
    "field name twice": (SOURCE, SOURCE.replace('"source"', '"base"'), "the name is used twice"),
    "field id twice": (SOURCE, SOURCE.replace('id="2"', 'id="1"'), "field id 1 is used twice"),
    "keyword as name": (SOURCE, SOURCE.replace('"source"', '"class"'), "is a keyword"),
    "odd name": (SOURCE, SOURCE.replace('"source"', '"so_urce"'), "plain camelCase"),
    "no description": (' description="time">', ">", "attribute description missing"),
    "number array": (
        '<type name="u16" primitiveType="uint16"',
        '<type name="u16" primitiveType="uint16" length="2"',
        "only char may be an array",
    ),
    "float": ('<type name="u16" primitiveType="uint16"', '<type name="u16" primitiveType="double"', "is not allowed"),
    "type twice": ('<type name="u16"', '<type name="u8"', "defined twice"),
    "enum value twice": ('<validValue name="Sell">2<', '<validValue name="Sell">1<', "a value is used twice"),
    "enum value too big": ('<validValue name="Sell">2<', '<validValue name="Sell">256<', "256 is above 255"),
    "enum name twice": ('<validValue name="Sell">2<', '<validValue name="Buy">2<', "a name is used twice"),
    "bit too high": ('<choice name="UnlockEntry">1<', '<choice name="UnlockEntry">8<', "8 is above 7"),
    "enum differs between schemas": ('<validValue name="Sell">2<', '<validValue name="Sell">3<', "differ"),
}


@pytest.mark.parametrize("case", BAD_ORDERS)
def test_a_schema_that_breaks_a_rule_is_refused(tree: Path, case: str, capsys: pytest.CaptureFixture[str]) -> None:
    before, after, complaint = BAD_ORDERS[case]
    path = tree / generate.ORDERS
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))

    assert generate.main(["--root", str(tree)]) == 1

    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "source", "message", "limit"),
    [
        ("request", generate.ORDERS, '"NewOrderSingle" id="100" blockLength="80"', 80),
        ("log record", generate.ORDERS, '"SessionBind" id="321" blockLength="80"', 80),
        ("report", generate.ORDERS, '"OrderExecuted" id="202" blockLength="96"', 96),
        ("market data", generate.MARKETDATA, '"OrderExecute" id="21" blockLength="48"', 48),
    ],
)
def test_a_block_above_its_cap_is_refused(tree: Path, name: str, source: str, message: str, limit: int) -> None:
    path = tree / source
    head, tail = path.read_text().split(message)
    body, rest = tail.split("</sbe:message>", 1)
    extra = f'<field name="extra" id="99" type="u64" offset="{limit}"/>'
    longer = message.replace(f'blockLength="{limit}"', f'blockLength="{limit + 8}"')
    path.write_text(head + longer + body + extra + "</sbe:message>" + rest)

    with pytest.raises(schema.SchemaError, match=f"blockLength {limit + 8} is above {limit}"):
        schema.load(path)


def test_hash_depends_on_layout_and_not_on_descriptions(tree: Path) -> None:
    path = tree / generate.ORDERS
    text = path.read_text()
    before = schema.load(path).hash

    path.write_text(text.replace('description="time"', 'description="the time"'))
    assert schema.load(path).hash == before
    path.write_text(text.replace('name="now"', 'name="then"'))
    assert schema.load(path).hash != before
    path.write_text(text.replace('<validValue name="Transfer">5<', '<validValue name="Transfer">6<'))
    assert schema.load(path).hash != before


@pytest.mark.parametrize(
    ("data", "expected"),
    [(b"", 0xCBF29CE484222325), (b"a", 0xAF63DC4C8601EC8C), (b"foobar", 0x85944171F73967E8)],
)
def test_fnv1a_matches_the_published_vectors(data: bytes, expected: int) -> None:
    assert schema.fnv1a_64(data) == expected


@pytest.mark.parametrize(
    ("camel", "snake"),
    [
        ("clOrdId", "cl_ord_id"),
        ("GTC", "gtc"),
        ("HmacSha256", "hmac_sha256"),
        ("Ed25519", "ed25519"),
        ("IocRemainder", "ioc_remainder"),
    ],
)
def test_snake_case(camel: str, snake: str) -> None:
    assert schema.snake(camel) == snake


def compile_c(tmp_path: Path, source: str, *arguments: str, compiler: str = "gcc", suffix: str = ".c") -> Path:
    path = tmp_path / f"probe{suffix}"
    output = tmp_path / "probe.out"
    path.write_text(source)
    command = [compiler, *STRICT, *arguments, f"-I{INCLUDE}", str(path), "-o", str(output)]
    finished = subprocess.run(command, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    return output


@needs_gcc
def test_headers_compile_alone_and_together_as_c11(tmp_path: Path) -> None:
    for includes in (["orders.h"], ["marketdata.h"], ["wire_common.h"], ["marketdata.h", "orders.h", "orders.h"]):
        source = "".join(f'#include "{name}"\n' for name in includes) + "int main(void) { return 0; }\n"
        compile_c(tmp_path, source, "-std=c11", "-pedantic")


@pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")
def test_headers_compile_as_cpp(tmp_path: Path) -> None:
    source = """
        #include "orders.h"
        #include "marketdata.h"
        int main() {
            new_order_single_t order{};
            order.side = SIDE_BUY;
            order.ord_type = ORD_TYPE_STOP_LIMIT;
            order.time_in_force = TIME_IN_FORCE_GTC;
            order.price = PX_NULL;
            return orders_validate(TEMPLATE_NEW_ORDER_SINGLE, &order);
        }
    """
    program = compile_c(tmp_path, source, "-std=c++17", compiler="g++", suffix=".cc")

    assert subprocess.run([str(program)]).returncode == 0


@needs_gcc
def test_compiler_and_python_agree_on_every_offset(tmp_path: Path) -> None:
    lines = ['#include "orders.h"', '#include "marketdata.h"', "#include <stdio.h>", "int main(void) {"]
    expected = []
    for which in load_both(REPO):
        module = messages if which.package == "bullring_orders" else market_messages
        for message in which.messages:
            struct_name = f"{emit_c.struct_name(message)}_t"
            kind = module.MESSAGES[message.id]
            lines.append(f'    printf("{message.name} %zu\\n", sizeof({struct_name}));')
            expected.append(f"{message.name} {kind.STRUCT.size}")
            for name, _, offset in kind.COLUMNS:
                lines.append(f'    printf("{message.name}.{name} %zu\\n", offsetof({struct_name}, {name}));')
                expected.append(f"{message.name}.{name} {offset}")
    program = compile_c(tmp_path, "\n".join([*lines, "    return 0;", "}"]), "-std=c11")

    printed = subprocess.run([str(program)], capture_output=True, text=True, check=True).stdout.splitlines()

    assert printed == expected


PROBE = """
#include "marketdata.h"
#include "orders.h"
uint16_t validate(uint16_t id, const void *block);
uint16_t validate(uint16_t id, const void *block) { return orders_validate(id, block); }
uint16_t block_length(uint16_t id);
uint16_t block_length(uint16_t id) { return orders_block_length(id); }
const char *template_name(uint16_t id);
const char *template_name(uint16_t id) { return orders_template_name(id); }
uint64_t orders_hash(void);
uint64_t orders_hash(void) { return ORDERS_SCHEMA_HASH; }
uint64_t market_hash(void);
uint64_t market_hash(void) { return MARKETDATA_SCHEMA_HASH; }
"""


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    library = ctypes.CDLL(str(compile_c(tmp_path_factory.mktemp("probe"), PROBE, "-std=c11", "-shared", "-fPIC")))
    library.template_name.restype = ctypes.c_char_p
    library.validate.restype = library.block_length.restype = ctypes.c_uint16
    library.orders_hash.restype = library.market_hash.restype = ctypes.c_uint64
    return library


def test_c_tables_say_what_python_says(probe: ctypes.CDLL) -> None:
    assert probe.orders_hash() == messages.SCHEMA_HASH
    assert probe.market_hash() == market_messages.SCHEMA_HASH
    for template_id in range(0x10000):
        kind = messages.MESSAGES.get(template_id)
        assert probe.block_length(template_id) == (0 if kind is None else kind.BLOCK_LENGTH)
        assert probe.template_name(template_id) == (b"unknown" if kind is None else kind.__name__.encode())


ORDERS_SCHEMA = load_both(REPO)[0]
REQUESTS = [message for message in ORDERS_SCHEMA.messages if message.is_request]


def valid_block(message: schema.Message) -> bytearray:
    block = bytearray(message.block_length)
    for field in message.fields:
        if isinstance(field.type, schema.EnumType):
            block[field.offset : field.offset + field.size] = field.type.values[0][1].to_bytes(field.size, "little")
    return block


def validate(probe: ctypes.CDLL, message: schema.Message, block: bytearray) -> messages.RejectCode:
    aligned = (ctypes.c_uint64 * (len(block) // 8)).from_buffer_copy(block)
    return messages.RejectCode(probe.validate(message.id, aligned))


@pytest.mark.parametrize("message", REQUESTS, ids=lambda message: message.name)
def test_validator_accepts_good_and_refuses_each_bad_enum_set_and_padding(
    probe: ctypes.CDLL, message: schema.Message
) -> None:
    codes = {
        "Side": messages.RejectCode.INVALID_SIDE,
        "OrdType": messages.RejectCode.INVALID_ORD_TYPE,
        "TimeInForce": messages.RejectCode.INVALID_TIME_IN_FORCE,
        "StpMode": messages.RejectCode.INVALID_STP,
    }
    good = messages.RejectCode.NONE
    assert validate(probe, message, valid_block(message)) == good
    for field in message.fields:
        if isinstance(field.type, schema.EnumType):
            known = {value for _, value in field.type.values}
            bad = codes.get(field.type.name, messages.RejectCode.INVALID_COMBINATION)
            for value in range(256):
                block = valid_block(message)
                block[field.offset] = value
                assert validate(probe, message, block) == (good if value in known else bad)
        elif isinstance(field.type, schema.SetType):
            known = {bit for _, bit in field.type.choices}
            for bit in range(8 * field.size):
                block = valid_block(message)
                block[field.offset + bit // 8] |= 1 << bit % 8
                expected = good if bit in known else messages.RejectCode.INVALID_COMBINATION
                assert validate(probe, message, block) == expected
        elif field.is_padding:
            for offset in range(field.offset, field.offset + field.size):
                block = valid_block(message)
                block[offset] = 0x80
                assert validate(probe, message, block) == messages.RejectCode.PADDING_NOT_ZERO


def test_validator_refuses_what_is_no_request(probe: ctypes.CDLL) -> None:
    block = (ctypes.c_uint64 * 32)()
    for template_id in (0, 1, 99, 200, 202, 500, 65535):
        assert probe.validate(template_id, block) == messages.RejectCode.UNKNOWN_TEMPLATE


def test_importing_messages_does_not_load_numpy() -> None:
    code = "import sys, ringbuf.wire.messages, ringbuf.wire.market_messages; print('numpy' in sys.modules)"
    finished = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "False"
