"""Snapshots beside a journal: taken, verified, chosen, refused, pruned."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from journaler.retention import SnapshotFact, retain
from scripts import replay, snapshot
from scripts.cli import main
from scripts.config import Config, load
from scripts.exit_codes import CommandError, ExitCode
from scripts.journal import snapshots_of
from scripts.snapshots.files import SnapshotError
from scripts.snapshots.replaying import POINT_RECORDS, Point, Trail
from scripts.snapshots.store import SnapshotStore
from scripts.snapshots.taking import NothingNew, hash_marks, take
from scripts.snapshots.verifying import replay as replay_snapshot
from tests.kit.images import Log, append, small_log, write_log
from tests.kit.journals import SLOT_SIZE


@pytest.fixture(scope="module")
def log() -> Log:
    return small_log()


@pytest.fixture(scope="module")
def taken(log: Log, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with a log and one snapshot near its end."""
    data = tmp_path_factory.mktemp("taken") / "data"
    write_log(data / "journal", log)
    take(config_of(data), said.append, keep=3)
    return data


said: list[str] = []


@pytest.fixture
def data(taken: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of that folder to be damaged."""
    copy = tmp_path / "data"
    shutil.copytree(taken, copy)
    yield copy


def config_of(data: Path) -> Config:
    return load(None, {"node.data_dir": str(data)})


def only(data: Path) -> Path:
    (folder,) = SnapshotStore(data).folders()
    return folder


def test_it_stands_behind_a_hash_mark_that_another_one_follows(taken: Path, log: Log) -> None:
    manifest = next(SnapshotStore(taken).readable()).manifest
    marks = hash_marks(taken / "journal", 0, log.end)

    assert (manifest.sequence, manifest.verified_to) == (marks[0] + 1, marks[1] + 1)
    assert manifest.verified_state_hash != manifest.state_hash
    assert replay_snapshot(only(taken), taken / "journal", manifest.verified_to) == (
        manifest.verified_state_hash,
        manifest.verified_output_hash,
    )


def test_nothing_new_is_no_snapshot(data: Path) -> None:
    with pytest.raises(NothingNew, match="no two hash marks in the log above"):
        take(config_of(data), said.append, keep=3)


def test_a_start_uses_it(taken: Path, log: Log) -> None:
    chosen = SnapshotStore(taken).choose(taken / "journal", log.end, said.append)

    assert chosen is not None
    assert chosen.folder == only(taken)


def test_the_same_from_the_beginning_and_from_the_snapshot(taken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = []
    for start in ("beginning", "newest"):
        assert main(["replay", "--data", str(taken), "--json", "--verify", "--from", start]) == ExitCode.OK
        rows.append(json.loads(capsys.readouterr().out))

    assert rows[0]["state_hash"] == rows[1]["state_hash"]
    assert rows[0]["output_hash"] == rows[1]["output_hash"]
    assert rows[0]["snapshots_met"] == 1
    assert rows[0]["reports_compared"] > rows[1]["reports_compared"] > 0


# --- what is not used -------------------------------------------------------------------------------------------------


def refused(data: Path, log: Log, end: int | None = None) -> str:
    reasons: list[str] = []
    assert SnapshotStore(data).choose(data / "journal", log.end if end is None else end, reasons.append) is None
    (reason,) = reasons
    return reason


@pytest.mark.parametrize("name", ["sequencer.image", "matcher-1.image", "reports-1.slots"])
def test_a_changed_file_is_noticed(data: Path, log: Log, name: str) -> None:
    path = only(data) / name
    content = bytearray(path.read_bytes() or b"\0")
    content[len(content) // 2] ^= 1
    path.write_bytes(content)

    assert name in refused(data, log)


def test_a_shortened_file_is_noticed(data: Path, log: Log) -> None:
    path = only(data) / "sequencer.image"
    path.write_bytes(path.read_bytes()[:-1])

    assert "the manifest says" in refused(data, log)


def test_a_missing_file_is_noticed(data: Path, log: Log) -> None:
    (only(data) / "matcher-2.image").unlink()

    assert "cannot be read" in refused(data, log)


def test_a_manifest_that_cannot_be_read_is_passed_over(data: Path, log: Log) -> None:
    (only(data) / "manifest.json").write_text("{")

    assert "is damaged" in refused(data, log)


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("layout", "0" * 16, "lays state out otherwise"),
        ("log_hash", "0" * 16, "it is of another log"),
        ("sequence", 1 << 40, "the log ends at"),
    ],
)
def test_one_that_does_not_fit_is_passed_over(data: Path, log: Log, key: str, value: object, reason: str) -> None:
    path = only(data) / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))

    assert reason in refused(data, log)


def test_one_above_the_end_of_the_log_is_passed_over(data: Path, log: Log) -> None:
    assert "the log ends at 10" in refused(data, log, end=10)


def test_an_older_one_is_used_when_the_newest_is_damaged(data: Path, log: Log) -> None:
    newest, older = only(data), only(data).with_name(f"{int(only(data).name) - 1:020}")
    shutil.copytree(newest, older)
    (newest / "manifest.json").write_text("{")
    reasons: list[str] = []

    chosen = SnapshotStore(data).choose(data / "journal", log.end, reasons.append)

    assert chosen is not None
    assert chosen.folder == older
    assert len(reasons) == 1


def test_a_log_that_does_not_explain_the_archive_has_no_snapshot(data: Path) -> None:
    shutil.rmtree(data / "snapshots")
    archive = data / "journal" / "reports" / "1"
    content = bytearray(archive.read_bytes())
    content[5 * SLOT_SIZE + 40] ^= 1
    archive.write_bytes(content)

    with pytest.raises(SnapshotError, match="DIVERGED: report 5 of partition 1"):
        take(config_of(data), said.append, keep=3)
    assert SnapshotStore(data).folders() == []


def test_a_state_that_is_not_what_the_log_gives_is_not_finished(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted fault: the verifying process comes to another state."""
    shutil.rmtree(data / "snapshots")
    monkeypatch.setattr("scripts.snapshots.taking.replay_elsewhere", lambda *_: ("00", "00"))

    with pytest.raises(SnapshotError, match="comes to another state"):
        take(config_of(data), said.append, keep=3)
    assert SnapshotStore(data).folders() == []


# --- commands ---------------------------------------------------------------------------------------------------------


def test_verify_says_which_is_bad(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert snapshot.run(["verify", "--data", str(data), "--json"]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out)["verdict"] == "good"

    path = only(data) / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"verified_output_hash": "00"}))

    assert snapshot.run(["verify", "--data", str(data), "--json"]) == ExitCode.NEGATIVE
    assert json.loads(capsys.readouterr().out)["reason"] == "it comes to another state than when it was taken"


def test_verify_of_one_that_is_not_there(data: Path) -> None:
    with pytest.raises(CommandError, match="no readable snapshot 7"):
        snapshot.run(["verify", "--data", str(data), "7"])


def test_list_names_the_newest_first(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(only(data), only(data).with_name(f"{1:020}"))

    assert snapshot.run(["list", "--data", str(data), "--json"]) == ExitCode.OK
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_pruning_keeps_the_newest_and_removes_what_was_interrupted(data: Path) -> None:
    store = SnapshotStore(data)
    for number in (1, 2, 3):
        shutil.copytree(only(data) if number == 1 else store.folders()[0], store.folder / f"{number:020}")
    left = store.begin(99)

    assert store.prune(2) == [2, 1]
    assert not left.exists()
    assert [int(folder.name) for folder in store.folders()][1:] == [3]


def test_retention_is_told_of_them(data: Path) -> None:
    manifest = next(SnapshotStore(data).readable()).manifest

    assert list(snapshots_of(data / "journal").snapshots()) == [SnapshotFact(manifest.sequence, verified=True)]
    assert retain(data / "journal", snapshots_of(data / "journal"), dry_run=True).delete == ()


def test_a_damaged_one_does_not_let_the_log_go(data: Path) -> None:
    (only(data) / "matcher-1.image").write_bytes(b"")

    assert list(snapshots_of(data / "journal").snapshots()) == []


# --- comparing replays ------------------------------------------------------------------------------------------------


def replay_row(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, object]]:
    code = replay.run([*arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_a_log_agrees_with_itself_and_with_its_trail(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trail = tmp_path / "trail"
    replay_row(capsys, "--data", str(data), "--trail", str(trail))

    for other in (trail, data):
        code, row = replay_row(capsys, "--data", str(data), "--compare", str(other))
        assert (code, row["difference"]) == (ExitCode.OK, "")
        assert row["compared_points"] != 0


def test_another_log_is_noticed_with_the_record(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other"
    write_log(other / "journal", small_log(orders=41), reports=False)

    code, row = replay_row(capsys, "--data", str(data), "--compare", str(other))

    assert code == ExitCode.NEGATIVE
    assert "the logs differ from record" in str(row["difference"])


def test_another_state_is_noticed_with_the_place(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trail = tmp_path / "trail"
    replay_row(capsys, "--data", str(data), "--trail", str(trail))
    lines = trail.read_text().splitlines()
    trail.write_text("\n".join([*lines[:-1], lines[-1].replace('"output_hash": "', '"output_hash": "ff')]))

    code, row = replay_row(capsys, "--data", str(data), "--compare", str(trail))

    assert code == ExitCode.NEGATIVE
    assert str(row["difference"]).startswith("output_hash differ at")


def test_a_trail_is_noted_at_the_same_places_wherever_a_replay_begins() -> None:
    class Replica:
        position = 0
        output_hash = b""

        def state_hash(self) -> bytes:
            return b""

    def places(start: int) -> list[int]:
        trail, replica = Trail(), Replica()
        for position in range(start, 5 * POINT_RECORDS, 700):
            replica.position = position
            trail.note(replica)  # type: ignore[arg-type]
        return [point.sequence for point in trail.points]

    assert places(0)[2:] == places(700 * 10)[1:][-len(places(0)[2:]) :]


def test_trails_without_a_common_place_are_no_agreement() -> None:
    common, _ = Trail([Point(1, "a", "b")]).difference(Trail([Point(2, "a", "b")]))

    assert common == 0


@pytest.mark.parametrize("arguments", [["--to", "99999999"], ["--from", "123"]])
def test_a_replay_of_what_is_not_there_is_refused(data: Path, arguments: list[str]) -> None:
    with pytest.raises(CommandError, match=r"--(to|from)"):
        replay.run(["--data", str(data), *arguments])


def test_archived_reports_of_another_log_are_refused(data: Path) -> None:
    shutil.rmtree(data / "journal" / "reports")
    append(data / "journal", 1, 0, bytes(range(128)))

    with pytest.raises(CommandError, match="DIVERGED"):
        replay.run(["--data", str(data), "--verify"])
