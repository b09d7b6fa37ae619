"""What auditors get: every record a row, every field by name, the same in CSV and Parquet."""

import csv
import dataclasses
import io
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest

from journaler import append_missing, export
from journaler.errors import JournalRefused
from journaler.export import LOG_TEMPLATES, REPORT_TEMPLATES, log_rows, report_rows, write_csv, write_parquet
from journaler.segments import list_segments
from ringbuf.wire.messages import (
    MESSAGES,
    ExecInst,
    NewOrderSingle,
    OrderExecuted,
    OrdType,
    RejectCode,
    Side,
    Template,
    TimeInForce,
)
from tests.kit import journals


def write(directory: Path, slots: list[bytes]) -> None:
    with journals.log_ring() as ring, journals.opened(directory, ring) as journaler:
        for slot in slots:
            journals.publish(ring, slot)
        journals.poll_all(journaler, ring)


def table(columns: Any, rows: Any) -> list[dict[str, str]]:
    file = io.StringIO()
    assert write_csv(file, columns, rows) >= 0
    file.seek(0)
    return list(csv.DictReader(file))


def order(**terms: Any) -> bytes:
    values: dict[str, Any] = {
        "instrument_id": 4,
        "side": Side.SELL,
        "ord_type": OrdType.LIMIT,
        "time_in_force": TimeInForce.GTC,
        "price": -5,
        "order_qty": 7,
        "cl_ord_id": 2**64 - 2,
    }
    return NewOrderSingle(**(values | terms)).pack()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    new = Template.NEW_ORDER_SINGLE
    write(
        tmp_path,
        [
            journals.slot(0),
            journals.slot(1, template=new, block=order(exec_inst=ExecInst(3)), flags=3 << 8) + b"",
            journals.slot(2, template=new, block=order(), flags=4)[:120]
            + int(RejectCode.SYSTEM_BUSY).to_bytes(8, "little"),
            journals.slot(3, template=9999, block=b"\xab" * 80),
            journals.slot(4, template=new, block=order(side=77)),
            journals.slot(5, flags=journals.LAZY),
        ],
    )
    return tmp_path


def test_fields_stand_under_their_names(directory: Path) -> None:
    rows = table(*log_rows(directory, None, None))

    assert [row["sequence"] for row in rows] == ["0", "1", "2", "3", "4", "5"]
    first = rows[1]
    assert (first["template"], first["side"], first["price"], first["order_qty"]) == (
        "NewOrderSingle",
        "SELL",
        "-5",
        "7",
    )
    assert (first["cl_ord_id"], first["tier"], first["verdict"]) == (str(2**64 - 2), "3", "accepted")
    assert first["exec_inst"] == "|".join(member.name or "" for member in ExecInst(3))
    assert first["time"] == "2023-11-14 22:13:20.000000001"
    assert (rows[2]["verdict"], rows[2]["verdict_code"]) == ("rejected", "SYSTEM_BUSY")
    assert (rows[3]["template"], rows[3]["unknown_block"], rows[3]["price"]) == ("9999", "ab" * 80, "")
    assert rows[4]["side"] == "77"  # an enumeration's value that this version does not know
    assert rows[5]["lazy"] == "true" and rows[0]["price"] == ""


def test_range_is_respected(directory: Path) -> None:
    assert [row["sequence"] for row in table(*log_rows(directory, 2, 4))] == ["2", "3"]


def test_every_template_has_all_its_fields_in_the_table() -> None:
    for templates, (columns, rows) in (
        (LOG_TEMPLATES, log_rows(Path("nowhere"), None, None)),
        (REPORT_TEMPLATES, report_rows(Path("nowhere"), 1, None, None)),
    ):
        rows.close()
        names = [column.name for column in columns]
        assert len(set(names)) == len(names)
        for template, message in MESSAGES.items():
            if any(template in each for each in templates):
                for field in dataclasses.fields(message):
                    assert field.name in names or f"field_{field.name}" in names, (message, field)


def test_every_template_survives_as_a_row(tmp_path: Path) -> None:
    known = {
        template: message
        for template, message in sorted(MESSAGES.items())
        if any(template in each for each in LOG_TEMPLATES) and message.BLOCK_LENGTH <= 80
    }
    slots = [
        journals.slot(sequence, template=template, block=bytes(range(1, message.BLOCK_LENGTH + 1)))
        for sequence, (template, message) in enumerate(known.items())
        if template != Template.EPOCH_START
    ]
    write(tmp_path, [bytes(slot) for slot in slots])

    rows = table(*log_rows(tmp_path, None, None))

    assert {row["template"] for row in rows} == {
        message.__name__ for template, message in known.items() if template != Template.EPOCH_START
    }
    assert all(row["unknown_block"] == "" for row in rows)


def test_damage_ends_the_export_with_its_place(directory: Path) -> None:
    journals.write_journal(directory, [10, 10], base=6)
    path = list_segments(directory)[0].path
    data = bytearray(path.read_bytes())
    data[700] ^= 1
    path.write_bytes(data)
    with pytest.raises(JournalRefused):
        table(*log_rows(directory, None, None))


def test_reports_are_exported_too(tmp_path: Path) -> None:
    block = OrderExecuted(order_id=9, trade_id=5, last_px=100, last_qty=3, side=Side.BUY, fee=-2).pack()
    head = (77).to_bytes(4, "little") + int(Template.ORDER_EXECUTED).to_bytes(2, "little") + bytes([0, 3])
    slot = (head + bytes(16) + (12345).to_bytes(8, "little") + block).ljust(128, b"\0")
    append_missing(tmp_path, 3, 0, slot + bytes(128) + slot)

    rows = table(*report_rows(tmp_path, 3, None, None))

    assert [row["report_seq"] for row in rows] == ["0", "2"]  # the lost one in between is no report
    assert (rows[0]["template"], rows[0]["session"], rows[0]["in_seq"]) == ("OrderExecuted", "77", "12345")
    assert (rows[0]["last_px"], rows[0]["fee"], rows[0]["side"]) == ("100", "-2", "BUY")
    assert [row["report_seq"] for row in table(*report_rows(tmp_path, 3, 1, 2))] == []


# --- Parquet ----------------------------------------------------------------------------------------------------------


def test_parquet_holds_what_csv_holds_with_types(directory: Path, tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    columns, rows = log_rows(directory, None, None)

    assert write_parquet(path, columns, rows) == 6

    assert not list(tmp_path.glob("*.tmp"))
    found = parquet.read_table(path)
    assert found.schema.names == [column.name for column in columns]
    kinds = {field.name: str(field.type) for field in found.schema}
    assert (kinds["price"], kinds["cl_ord_id"], kinds["side"]) == ("int64", "uint64", "string")
    assert (kinds["time"], kinds["linked"]) == ("timestamp[ns, tz=UTC]", "bool")
    assert found["time"].cast("int64").to_pylist() == [1_700_000_000_000_000_000 + each for each in range(6)]
    expected = table(*log_rows(directory, None, None))
    for column in columns:
        if column.kind == "time":
            continue
        for value, row in zip(found[column.name].to_pylist(), expected, strict=True):
            text = "" if value is None else str(value).lower() if column.kind == "bool" else str(value)
            assert text == row[column.name], column


def test_parquet_goes_out_in_groups_of_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journals.write_journal(tmp_path, [25])
    monkeypatch.setattr(export, "ROW_GROUP", 10)

    write_parquet(tmp_path / "log.parquet", *log_rows(tmp_path, None, None))

    file = parquet.ParquetFile(tmp_path / "log.parquet")
    assert [file.metadata.row_group(index).num_rows for index in range(file.num_row_groups)] == [10, 10, 5]


def test_parquet_of_a_damaged_journal_leaves_no_file(directory: Path, tmp_path: Path) -> None:
    journals.write_journal(directory, [10, 10], base=6)
    path = list_segments(directory)[0].path
    data = bytearray(path.read_bytes())
    data[700] ^= 1
    path.write_bytes(data)

    with pytest.raises(JournalRefused):
        write_parquet(tmp_path / "log.parquet", *log_rows(directory, None, None))

    assert not list(tmp_path.glob("log.parquet*"))
