"""A replica that was stored and loaded goes on exactly as one that was not, whatever the log holds."""

import faulthandler
import os
import random
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace

import pytest

from engine import EngineError, Replica
from tests.kit.images import Log, random_log, replica_at, restore, store

COMMANDS = 250
CUTS = 8


@pytest.fixture(scope="module", params=[1, 2])
def log(request: pytest.FixtureRequest) -> Log:
    return random_log(request.param, COMMANDS, partitions=1 + request.param % 2)


def cuts(log: Log, rng: random.Random) -> list[int]:
    return sorted(rng.sample([sequence for sequence in range(log.end) if log.is_cut(sequence)], CUTS))


def end_of(replica: Replica, log: Log) -> tuple[bytes, bytes, dict[int, int]]:
    """Follow the rest of the log; return state hash, output hash and how many reports there are."""
    if replica.position < log.end:
        replica.feed(replica.position, log.between(replica.position, log.end))
    assert replica.check() == ""
    return replica.state_hash(), replica.output_hash, replica.report_ends


def test_stored_anywhere_and_loaded_it_comes_to_the_same(log: Log, rng: random.Random) -> None:
    with closing(replica_at(log, 0)) as whole:
        expected = end_of(whole, log)
    for sequence in cuts(log, rng):
        with closing(replica_at(log, sequence)) as before:
            stored = store(before)
        with closing(restore(log.config, stored)) as after:
            assert store(after) == stored, sequence
            assert end_of(after, log) == expected, sequence


def test_output_hash_does_not_depend_on_how_the_log_is_fed(log: Log) -> None:
    with closing(replica_at(log, log.end)) as at_once, closing(replica_at(log, 0)) as by_record:
        for sequence in range(log.end):
            if log.is_cut(sequence + 1):
                by_record.feed(by_record.position, log.between(by_record.position, sequence + 1))

        assert end_of(by_record, log) == end_of(at_once, log)


def survives(work: Callable[[], bool]) -> bool:
    """Whether `work` is true in a process of its own: a broken invariant ends the process."""
    child = os.fork()
    if child == 0:
        try:
            faulthandler.disable()
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            os._exit(0 if work() else 1)
        except BaseException:
            os._exit(1)
    return os.waitpid(child, 0)[1] == 0


# --- what must be noticed ---------------------------------------------------------------------------------------------


def test_snapshot_without_the_reports_above_the_marks_is_noticed(log: Log) -> None:
    """Planted fault: the model of CORE section 9 loses 2,956 of 3,000 recoveries to it."""
    with closing(replica_at(log, 0)) as whole:
        expected = end_of(whole, log)
    for sequence in range(log.end // 2, log.end):
        if not log.is_cut(sequence):
            continue
        with closing(replica_at(log, sequence)) as before:
            stored = store(before)
        if any(stored.unsettled.values()):
            assert survives(lambda stored=stored: end_of(restore(log.config, stored), log) == expected)
            broken = replace(stored, unsettled={partition: b"" for partition in stored.unsettled})
            assert not survives(lambda broken=broken: end_of(restore(log.config, broken), log) == expected)
            return
    pytest.fail("no place in the log has reports above the marks")


def test_one_changed_byte_of_an_image_is_noticed(log: Log, rng: random.Random) -> None:
    """Planted fault: a balance of the sequencer's table is one unit too high."""
    with closing(replica_at(log, log.end)) as whole:
        stored = store(whole)
        honest = whole.state_hash()
    offset, first = stored.runs[0][0]
    at = next(at for at in range(8, len(first), 32) if first[at - 4])  # available, of an entry with an asset
    changed = first[:at] + bytes([first[at] ^ 1]) + first[at + 1 :]
    broken = replace(stored, runs=[[(offset, changed), *stored.runs[0][1:]], *stored.runs[1:]])
    with closing(restore(log.config, broken)) as after:
        assert after.check() != "" or after.state_hash() != honest


def test_head_of_another_build_is_refused(log: Log) -> None:
    with closing(replica_at(log, log.end)) as whole:
        stored = store(whole)

    with pytest.raises(EngineError, match="the image's head has"):
        restore(log.config, replace(stored, heads=[stored.heads[0] + b"\0", *stored.heads[1:]]))
