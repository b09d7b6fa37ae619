"""`bullring bench book`: small flows through the real programs; wrong sums are told; bad input is refused by name."""

import json
import struct
from pathlib import Path

import pytest

from scripts.bench import book
from scripts.exit_codes import CommandError, ExitCode

ASKED = "stream ns_per_op_median ns_per_op_min rounds events_per_s sums_ok array_ns_per_op_median ratio".split()
NEW, IOC = 0, 1


def stream_file(path: Path, *, fills: int) -> Path:
    """Return a file of an ask and a bid that takes half of it."""
    header = struct.pack("<8sQQqqQQQ", b"OBSTRM01", 2, 3, 1, 1000, fills, 5, 500)
    operations = [(NEW, 1, 10, 1, 100), (IOC, 0, 5, 2, 101)]
    path.write_bytes(header + b"".join(struct.pack("<BBHIIi", op, side, 0, *rest) for op, side, *rest in operations))
    return path


def test_one_line_has_what_was_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = stream_file(tmp_path / "two.bin", fills=1)

    assert book.run(["--stream", str(path), "--rounds", "1", "--json"]) == ExitCode.OK

    (line,) = [json.loads(text) for text in capsys.readouterr().out.splitlines()]
    assert set(ASKED) <= set(line)
    assert (line["stream"], line["rounds"], line["sums_ok"]) == ("two.bin", 1, True)
    assert line["events_per_op"] == 1.0
    assert line["with_reports_reports_per_op"] == 2.0


def test_wrong_sums_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = stream_file(tmp_path / "two.bin", fills=2)

    assert book.run(["--stream", str(path), "--rounds", "1"]) == ExitCode.NEGATIVE

    assert "THE SUMS ARE WRONG" in capsys.readouterr().out


def test_flows_of_our_own_agree_with_the_array(capsys: pytest.CaptureFixture[str]) -> None:
    assert book.run(["--resting", "1000", "--sweep", "--rounds", "1", "--json"]) == ExitCode.OK

    lines = [json.loads(text) for text in capsys.readouterr().out.splitlines()]
    assert [line["stream"] for line in lines] == ["resting-1000", "sweep-10000-levels-1", "sweep-10000-levels-10000"]
    assert [line["open_orders_max"] for line in lines] == [1000, 10_000, 10_000]
    assert lines[1]["events_per_op"] == 10_000


@pytest.mark.parametrize(
    "content", [b"", b"OBSTRM02" + bytes(56), b"OBSTRM01" + struct.pack("<QQqq", 9, 9, 1, 9) + bytes(24)]
)
def test_what_is_no_stream_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "odd.bin"
    path.write_bytes(content)

    with pytest.raises(CommandError, match=r"odd\.bin is (no stream this bench can read|truncated)"):
        book.run(["--stream", str(path), "--rounds", "1"])


@pytest.mark.parametrize("arguments", [["--rounds", "0"], ["--resting", "0"], ["--capacity", "1000"]])
def test_numbers_out_of_range_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        book.run(arguments)

    assert f"{arguments[0]} must be" in capsys.readouterr().err
