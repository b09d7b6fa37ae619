"""Each rule of the journal has a test that fails when the rule is broken: one line is changed, the test must notice."""

import signal
from pathlib import Path

import pytest

from tests.kit import mutants

pytestmark = pytest.mark.slow

STAGE = "journal_stage"
ORDER = "journal_order"
STORAGE = "journal_storage"
PYTEST_FAILED = 1
EXIT_PANIC = 74
QUICK = ("-k", "not every_byte and not every_flipped")  # the others are enough, and there are many faults

IN_C = {
    "commit before write and sync": (
        ORDER,
        "journal.c",
        "    write_batch(journaler, count);\n",
        "    ring_store_commit(journaler->log, (int64_t)position->sequence + count);\n"
        "    journaler->commit = (int64_t)position->sequence + count;\n    write_batch(journaler, count);\n",
    ),
    "no sync at all": (ORDER, "journal.c", "config.sync && fdatasync(journaler->segment_fd) != 0)", "config.sync > 1)"),
    "a second sync after a failed one": (
        ORDER,
        "journal.c",
        "config.sync && fdatasync(journaler->segment_fd) != 0)",
        "config.sync && fdatasync(journaler->segment_fd) != 0 && fdatasync(journaler->segment_fd) != 0)",
    ),
    "a new segment's name not synced": (
        ORDER,
        "journal.c",
        "config.sync && fsync(journaler->directory_fd) != 0)",
        "config.sync > 1)",
    ),
    "two batches before a sync": (
        ORDER,
        "journal.c",
        "if (journaler->config.sync && fdatasync(",
        "if (journaler->stats.batches % 2 && fdatasync(",
    ),
    "batch ends inside a group": (
        STAGE,
        "journal.c",
        "        if ((slot->flags & SLOT_FLAG_MORE) == 0)\n            whole = i + 1;",
        "        whole = i + 1;",
    ),
    "epoch begins inside a batch": (STAGE, "journal.c", "i > 0 && log_epoch_after(slot, 0) != 0", "i < 0"),
    "commit runs ahead of the standby": (
        STAGE,
        "journal.c",
        "durable < replicated ? durable : replicated",
        "durable + 0 * replicated",
    ),
    "lazy records are written at once": (
        STAGE,
        "journal.c",
        ">= journaler->config.lazy_ns;",
        ">= 0 * journaler->config.lazy_ns;",
    ),
    "a lone order waits for company": (STAGE, "gather.c", "#define STREAM_SLOTS 16", "#define STREAM_SLOTS 1"),
    "no stream ever ends": (STAGE, "gather.c", "#define PAUSE_NS 1000000u", "#define PAUSE_NS UINT64_MAX"),
    "nobody waits for company": (STAGE, "journal.c", "    pending = gather(journaler, pending);\n", ""),
    "what came while it waited is left for later": (
        STAGE,
        "journal.c",
        "    pending = gather(journaler, pending);\n",
        "    gather(journaler, pending);\n",
    ),
    "waiting goes on where nobody comes": (STAGE, "gather.c", "journaler->gather_backoff * 2 + 1", "0"),
    "a wait that paid is given up": (STAGE, "gather.c", "paid ? 0 : ", ""),
    "wanted is ignored": (STAGE, "journal.c", "(int64_t)journaler->position.sequence < wanted", "wanted < 0"),
    "marks are not written": (STAGE, "keeper.c", "position.sequence == journaler->mark_sequence", "1"),
    "a full filesystem is not told of": (STORAGE, "watch.c", "usable * config->space_halt", "usable * 0"),
    "cancel-only one percent late": (
        STORAGE,
        "watch.c",
        "usable * config->space_cancel_only)",
        "usable * (config->space_cancel_only - 1))",
    ),
    "the percentages count although there is enough": (
        STORAGE,
        "watch.c",
        "available >= config->space_enough",
        "available > config->space_enough",
    ),
    "no bytes are always enough": (STORAGE, "watch.c", "config->space_enough != 0 && ", ""),
    "a quota is not told of": (
        STORAGE,
        "watch.c",
        "&journaler->halted, memory_order_acquire) != 0",
        "&journaler->halted, memory_order_acquire) < 0",
    ),
    "slow syncs of another day count": (
        STORAGE,
        "watch.c",
        "now_ns - first < config->sync_alarm_ns",
        "first > 0",
    ),
    "a hanging sync is not told of": (
        STORAGE,
        "watch.c",
        "now - began >= journaler",
        "now - began >= 1000 * journaler",
    ),
    "the alarm of a slow sync never ends": (STORAGE, "watch.c", "now_ns + config->sync_alarm_ns", "UINT64_MAX"),
    "archive at the wrong place": (
        STAGE,
        "archive.c",
        "(off_t)archive->next * JOURNAL_SLOT_SIZE",
        "(off_t)(archive->next + 1) * JOURNAL_SLOT_SIZE",
    ),
    "reader splits groups": (STAGE, "walk.c", "count = journal_whole_groups(from, room);", "count = room;"),
    "long lanes of the checksum joined wrongly": (
        STAGE,
        "crc32c.c",
        "#define LANE_LONG 2048",
        "#define LANE_LONG 2044",
    ),
}

IN_PYTHON = {
    "damage two batches before the end is cut": (
        "recover.py",
        "walk.chain.batch + 2",
        "walk.chain.batch + 3",
        "recover",
    ),
    "the mark is not looked at": (
        "recover.py",
        "if mark is not None and sequence < mark.sequence:",
        "if mark is not None and sequence < 0:",
        "recover",
    ),
    "the mark's checksum is not compared": ("recover.py", "if here != (mark", "if not here and (mark", "recover"),
    "a torn tail is left in the file": ("recover.py", "bytes(torn.end - torn.offset)", "b''", "recover"),
    "a gap between segments is accepted": (
        "recover.py",
        "    if chain.sequence != following.first_sequence:",
        "    if chain.sequence > following.first_sequence:",
        "recover",
    ),
    "a lapped follower reads above commit": ("reader.py", "self._files.read(durable)", "self._files.read()", "reader"),
    "damage below the durable end ends the log": (
        "reader.py",
        "if limit is not None:\n",
        "if limit == -1:\n",
        "reader",
    ),
    "one snapshot is enough": (
        "retention.py",
        "if len(covering) < snapshots_min:",
        "if len(covering) < 1:",
        "retention",
    ),
    "snapshots nobody verified count": (
        "retention.py",
        "if each.verified and each.sequence >= segment.end}",
        "if each.sequence >= segment.end}",
        "retention",
    ),
    "a slow consumer is forgotten": (
        "retention.py",
        "if sequence < segment.end)",
        "if sequence < segment.first)",
        "retention",
    ),
    "deleted before it is said": ("retention.py", "if first > trimmed_to(directory):", "if first < 0:", "retention"),
    "the archive's bytes are not read": (
        "archiving.py",
        "return file_sha256(copy, direct=True) == file_sha256(path)",
        "return True",
        "retention",
    ),
    "a peer that is behind is good enough": (
        "repair.py",
        "if mark is not None and theirs.position.sequence < mark.sequence:",
        "if mark is not None and theirs.position.sequence < 0:",
        "repair",
    ),
    "a stranger's log is taken": (
        "repair.py",
        "if mark is not None and identity_at(peer, mark.sequence) != mark.log_hash:",
        "if mark is None:",
        "repair",
    ),
    "what others know is not compared": ("identity.py", "    if end < sequence:\n", "    if end < 0:\n", "inspect"),
    "what is replaced is thrown away": (
        "repair.py",
        "(directory / name).rename(folder / name)",
        "(directory / name).unlink()",
        "repair",
    ),
    "a damaged segment ends the export quietly": (
        "export.py",
        "    except BaseException:\n        draft.unlink(missing_ok=True)\n        raise\n",
        "    except Exception:\n        pass\n",
        "export",
    ),
    "an audit record is believed": (
        "audit.py",
        "if chain.words != record.after or chain.digest(record.end - record.origin) != record.sha256:",
        "if chain.words != record.after:",
        "inspect",
    ),
    "other bytes in the archive are overwritten": ("archive.py", "if any(old):", "if old is None:", "archive"),
}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return mutants.copy_package("journaler", tmp_path)


@pytest.mark.parametrize("test", [STAGE, ORDER, STORAGE])
def test_native_tests_pass_without_a_fault(package: Path, test: str) -> None:
    done = mutants.native(package, test)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("fault", IN_C)
def test_fault_in_c_is_noticed(package: Path, fault: str) -> None:
    test, name, old, new = IN_C[fault]
    mutants.change(package / name, old, new)

    done = mutants.native(package, test)

    by_the_test = done.returncode == -signal.SIGABRT and "invariant broken" in done.stderr
    by_the_audit = done.returncode == EXIT_PANIC and "audit" in done.stderr  # which reads back what was written
    assert by_the_test or by_the_audit, done.stdout + done.stderr


@pytest.mark.parametrize("test", sorted({test for _, _, _, test in IN_PYTHON.values()}))
def test_unit_tests_pass_without_a_fault(package: Path, test: str) -> None:
    done = mutants.unit(package, f"tests/unit/journaler/test_{test}.py", *QUICK)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("fault", IN_PYTHON)
def test_fault_in_python_is_noticed(package: Path, fault: str) -> None:
    name, old, new, test = IN_PYTHON[fault]
    mutants.change(package / name, old, new)

    done = mutants.unit(package, f"tests/unit/journaler/test_{test}.py", *QUICK)

    assert done.returncode == PYTEST_FAILED, done.stdout
    assert " passed" in done.stdout or " failed" in done.stdout


BEHIND = {
    "the audit chain begins anew with each segment": (
        "audit.c",
        "memcpy(audit->before,",
        "memcpy(audit->state, sha256_initial, sizeof audit->state);\n    memcpy(audit->before,",
        "audit",
    ),
    "the audit chain leaves out the first slot of a batch": (
        "audit.c",
        "audit->buffer + BATCH_HEADER_SIZE, (size - BATCH_HEADER_SIZE)",
        "audit->buffer + BATCH_HEADER_SIZE + 128, (size - BATCH_HEADER_SIZE - 128)",
        "audit",
    ),
    "a spare is trusted unread": ("prepare.c", "memcmp(buffer, zero, (size_t)got) != 0", "0", "writer"),
    "a half-made segment stays at a stop": (
        "prepare.c",
        "(void)unlinkat(journaler->directory_fd, temporary, 0);",
        "",
        "writer",
    ),
}


@pytest.mark.parametrize("fault", BEHIND)
def test_fault_off_the_order_path_is_noticed(package: Path, fault: str) -> None:
    name, old, new, test = BEHIND[fault]
    mutants.change(package / name, old, new)
    mutants.build_module(package, "_journal")

    done = mutants.unit(package, f"tests/unit/journaler/test_{test}.py")

    assert done.returncode == PYTEST_FAILED, done.stdout


def test_checksum_not_chained_is_noticed(package: Path) -> None:
    """Writer and reader agree with each other, but not with the format."""
    mutants.change(
        package / "journal.c",
        "crc32c(header, sizeof *header, header->prev_crc);\n    for",
        "crc32c(header, sizeof *header, 0);\n    for",
    )
    mutants.change(package / "walk.c", "crc32c(&copy, sizeof copy, seed)", "crc32c(&copy, sizeof copy, seed * 0)")
    mutants.build_module(package, "_journal")

    done = mutants.unit(package, "tests/unit/journaler/test_recover.py", *QUICK)

    assert done.returncode == PYTEST_FAILED, done.stdout
