"""`bullring journal`: what an operator sees."""

import hashlib
import json
from pathlib import Path

import pytest

from journaler import commands
from journaler.reader import LogReader
from journaler.recover import recover
from journaler.segments import audit_name, list_segments
from ringbuf.wire.messages import NewOrderSingle, OrdType, Side, Template, TimeInForce
from scripts.journal import snapshots_of
from tests.kit import journals, waiting


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    code = commands.run([str(argument) for argument in arguments], snapshots=snapshots_of)
    return code, capsys.readouterr().out


def test_verify_says_how_far_the_log_goes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journals.write_journal(tmp_path, [3, 4])

    assert run(capsys, "verify", tmp_path)[0] == 0
    code, text = run(capsys, "verify", tmp_path, "--json")

    result = json.loads(text)
    assert code == 0
    assert (result["verdict"], result["end"], result["batches"], result["marked"]) == ("clean", 7, 2, 7)


def test_verify_refuses_damage_and_names_file_and_sequence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journals.write_journal(tmp_path, [3, 4])
    path = list_segments(tmp_path)[0].path
    data = bytearray(path.read_bytes())
    data[600] ^= 1
    path.write_bytes(data)

    code, text = run(capsys, "verify", tmp_path)

    assert code == 1
    assert "REFUSED" in text and str(path) in text and "sequence 0" in text
    assert json.loads(run(capsys, "verify", tmp_path, "--json")[1])["verdict"] == "refused"


def test_verify_tells_of_a_torn_batch_and_an_earlier_panic(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journals.write_journal(tmp_path, [3])
    path = list_segments(tmp_path)[0].path
    with path.open("r+b") as file:
        file.seek(30_000)
        file.write(b"x")
    (tmp_path / "panic").write_text("journaler: fdatasync failed\n")

    code, text = run(capsys, "verify", tmp_path)

    assert code == 0
    assert "torn" in text and "fdatasync failed" in text


def test_verify_hashes_the_audited_segments_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with journals.log_ring() as ring, journals.opened(tmp_path, ring) as journaler:
        for _ in range(3):
            journals.publish(ring, journals.singles(ring.published, 300))
            journals.poll_all(journaler, ring)
        waiting.eventually(lambda: journaler.stats()["audited"] == ring.published, deadline_s=60)
    result = json.loads(run(capsys, "verify", tmp_path, "--json")[1])
    slots = b"".join(slots for _, slots in LogReader(tmp_path).batches(0, result["audit_end"]))
    assert result["audited_segments"] == len(list_segments(tmp_path)) - 1
    assert result["audit_sha256"] == hashlib.sha256(slots).hexdigest()

    path = tmp_path / audit_name(0)
    text = path.read_text()
    digit = "1" if text[-2] == "0" else "0"
    path.write_text(text[:-2] + digit + "\n")

    code, said = run(capsys, "verify", tmp_path)
    assert code == 1 and "not those that were hashed" in said and path.name in said


@pytest.mark.parametrize(
    ("floor", "code", "reason"),
    [
        ("7", 0, ""),
        ("7:HASH", 0, ""),
        ("3:0", 1, "are not those"),
        ("7:1", 1, "are not those"),
        ("8", 1, "ends at sequence 7, but 8 is known"),
        ("x", 2, ""),
    ],
)
def test_verify_compares_with_what_is_known_from_outside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], floor: str, code: int, reason: str
) -> None:
    journals.write_journal(tmp_path, [3, 4])
    known = floor.replace("HASH", f"{recover(tmp_path).position.log_hash:016x}")

    found, text = run(capsys, "verify", tmp_path, "--at-least", known)

    assert found == code and reason in text


def test_show_decodes_the_fields_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    order = NewOrderSingle(
        instrument_id=4, side=Side.SELL, ord_type=OrdType.LIMIT, time_in_force=TimeInForce.GTC, price=12345, order_qty=7
    )
    with journals.log_ring() as ring, journals.opened(tmp_path, ring) as journaler:
        journals.publish(ring, journals.slot(0))
        journals.publish(
            ring, journals.slot(1, template=Template.NEW_ORDER_SINGLE, block=order.pack(), flags=3 << 8 | 4)
        )
        journals.publish(ring, journals.slot(2, template=9999, block=b"\xab" * 80))
        journals.poll_all(journaler, ring)

    code, text = run(capsys, "show", tmp_path, "--json")
    records = [json.loads(line) for line in text.splitlines()]

    assert code == 0
    assert [record["template"] for record in records] == ["Tick", "NewOrderSingle", 9999]
    fields = records[1]["fields"]
    assert (fields["side"], fields["price"], fields["order_qty"], fields["instrument_id"]) == ("SELL", 12345, 7, 4)
    assert (records[1]["flags"], records[1]["tier"], records[1]["seq_num"]) == (["reject"], 3, 7)
    assert records[2]["block"] == "ab" * 80
    lines = run(capsys, "show", tmp_path)[1].splitlines()
    assert "NewOrderSingle" in lines[1] and "side=SELL" in lines[1] and "price=12345" in lines[1]


def test_show_takes_a_range(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journals.write_journal(tmp_path, [30])
    text = run(capsys, "show", tmp_path, "--from", 7, "--to", 9, "--json")[1]
    assert [json.loads(line)["sequence"] for line in text.splitlines()] == [7, 8]


def test_wrong_arguments_are_told_apart_from_refusals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "verify")[0] == 2
    assert run(capsys, "repair", tmp_path)[0] == 2
    assert run(capsys, "repair", tmp_path, "--from", tmp_path / "nothing")[0] == 2
    assert run(capsys, "export", tmp_path, "--output", tmp_path / "log.xls")[0] == 2
    assert run(capsys, "trim", tmp_path, "--archive", tmp_path / "nothing")[0] == 2
    assert run(capsys, "verify", tmp_path / "nothing")[0] == 2


@pytest.mark.parametrize("command", ["verify", "show", "export", "trim"])
def test_folder_that_holds_no_journal_is_never_called_clean(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    """`verify DATA` instead of DATA/journal said so."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "journal").mkdir()
    journals.write_journal(tmp_path / "journal", [3])

    assert commands.run([command, str(tmp_path / "empty")], snapshots=snapshots_of) == 2
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", f"{tmp_path / 'empty'} holds no journal: there is no segment-*.log\n")
    assert commands.run([command, str(tmp_path)], snapshots=snapshots_of) == 2
    assert f"did you mean {tmp_path / 'journal'}?" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["show", "export"])
@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (["--from", "-1"], "--from -1: must be 0 or more"),
        (["--from", "7", "--to", "7"], "--to 7: must be above --from, which is 7"),
        (["--to", "0"], "--to 0: must be above --from, which is 0"),
    ],
)
def test_range_without_anything_in_it_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, limits: list[str], said: str
) -> None:
    journals.write_journal(tmp_path, [30])

    assert commands.run([command, str(tmp_path), *limits], snapshots=snapshots_of) == 2

    assert capsys.readouterr().err == f"{said}\n"


def test_export_names_the_partition_or_folder_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journals.write_journal(tmp_path, [3])
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "1").touch()

    assert commands.run(["export", str(tmp_path), "--reports", "9"], snapshots=snapshots_of) == 2
    assert capsys.readouterr().err == "--reports 9: no reports of that partition; there are: 1\n"
    output = tmp_path / "nothing" / "log.csv"
    assert commands.run(["export", str(tmp_path), "--output", str(output)], snapshots=snapshots_of) == 2
    assert capsys.readouterr().err == f"--output {output}: {output.parent} is not a directory\n"
