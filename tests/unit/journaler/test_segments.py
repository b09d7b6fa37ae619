"""Names and reads of a journal directory."""

from pathlib import Path

import pytest

from journaler.segments import Segment, list_segments, lock_directory, read_segment, segment_name


def test_segments_are_listed_by_sequence_and_nothing_else_is(tmp_path: Path) -> None:
    for name in (segment_name(100), segment_name(9), "spare-0.zero", "segment-12.log", segment_name(5) + ".bad"):
        (tmp_path / name).touch()
    assert list_segments(tmp_path) == [
        Segment(9, tmp_path / segment_name(9)),
        Segment(100, tmp_path / segment_name(100)),
    ]


@pytest.mark.parametrize("size", [0, 1, 4096, 5000, (1 << 20) + 4096])
def test_direct_read_returns_the_same_bytes(tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * (size // 256) + bytes(size % 256))
    try:
        direct = read_segment(path, direct=True)
    except OSError as error:
        pytest.skip(f"this filesystem has no O_DIRECT: {error}")
    assert direct == read_segment(path) and len(direct) == size


def test_second_lock_is_refused_at_once(tmp_path: Path) -> None:
    assert lock_directory(tmp_path) is not None
    assert lock_directory(tmp_path) is None
