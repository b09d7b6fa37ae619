"""The stream of the log: what is sent, acknowledged, sent again, appended, refused; and where two logs part."""

import random

import pytest

from journaler.chain import LogPosition, extend
from replicator.config import StreamConfig
from replicator.errors import LogForked
from replicator.primary import LogSender
from replicator.protocol import Append
from replicator.standby import ForkSearch, LogReceiver, Verdict
from tests.kit.journals import epoch_start, group, singles

WINDOW = 64 * 1024
FRAME = 1024  # 8 slots


class Log:
    """A log in memory, as source and as sink."""

    def __init__(self, records: bytes = b"", room: int = 1 << 30) -> None:
        self.records = records
        self.room = room
        self.kept_from = 0
        self.wanted = 0

    def position(self, sequence: int) -> LogPosition:
        return extend(LogPosition(), self.records[: 128 * sequence])

    @property
    def end(self) -> int:
        return len(self.records) // 128

    def read(self, first: int, end: int, slots_max: int) -> bytes | None:
        cut = self.records[128 * first : 128 * min(end, first + slots_max)]
        while cut and cut[-128 + 14] & 1:
            cut = cut[:-128]
        return cut if first >= self.kept_from else None

    def append(self, records: bytes, wanted: int) -> bool:
        if len(records) > self.room:
            return False
        self.records += records
        self.room -= len(records)
        self.wanted = wanted
        return True

    def copy(self, first: int, count: int) -> bytes | None:
        return self.records[128 * first : 128 * (first + count)] if first >= self.kept_from else None


def sender(log: Log, *, start: int = 0) -> LogSender:
    return LogSender(log, StreamConfig(window_bytes=WINDOW, frame_bytes=FRAME), log.position(start))


def receiver(log: Log) -> LogReceiver:
    return LogReceiver(log, log.position(log.end), WINDOW)


def frames(source: LogSender, end: int) -> list[Append]:
    return list(source.frames_to(end, commit=0, wanted=end))


# --- sending --------------------------------------------------------------------------------------------------------


def test_all_records_are_sent_once_in_whole_groups() -> None:
    log = Log(singles(0, 5) + group(5, 6) + singles(11, 3))

    sent = frames(sender(log), log.end)

    assert b"".join(frame.records for frame in sent) == log.records
    assert [frame.first for frame in sent] == [0, 5, 13]  # a group of 6 does not fit behind 5 in a frame of 8
    assert [frame.chain_after for frame in sent] == [log.position(frame.end).chain for frame in sent]


def test_the_chain_goes_on_over_an_epochs_start() -> None:
    log = Log(singles(0, 3) + epoch_start(3, 9) + singles(4, 20))

    sent = frames(sender(log), log.end)

    assert sent[-1].chain_after == log.position(log.end).chain


def test_the_window_bounds_what_is_not_acknowledged() -> None:
    log = Log(singles(0, 2000))
    source = sender(log)

    first = frames(source, log.end)
    assert sum(len(frame.records) for frame in first) == WINDOW
    assert frames(source, log.end) == []

    assert source.acknowledge(first[3].end, first[3].chain_after)
    assert [frame.first for frame in frames(source, log.end)] == [first[-1].end + 8 * at for at in range(4)]


def test_what_cannot_be_had_now_is_sent_later() -> None:
    log = Log(singles(0, 20))
    log.kept_from = 10
    source = sender(log)

    assert frames(source, log.end) == []
    log.kept_from = 0
    assert frames(source, log.end)[0].first == 0


def test_an_acknowledgement_of_another_log_is_no_acknowledgement() -> None:
    log = Log(singles(0, 20))
    source = sender(log)
    sent = frames(source, log.end)

    with pytest.raises(LogForked, match="sequence 8"):
        source.acknowledge(sent[0].end, sent[0].chain_after ^ 1)
    assert source.acked == 0


def test_old_unknown_and_future_acknowledgements_say_nothing() -> None:
    log = Log(singles(0, 40))
    source = sender(log)
    sent = frames(source, 24)
    source.acknowledge(sent[1].end, sent[1].chain_after)

    assert not source.acknowledge(sent[0].end, sent[0].chain_after)
    assert not source.acknowledge(17, log.position(17).chain)
    assert not source.acknowledge(32, log.position(32).chain)
    assert source.acked == 16


def test_from_where_the_standby_asks_it_is_sent_again() -> None:
    log = Log(singles(0, 40))
    source = sender(log)
    sent = frames(source, 30)

    assert source.rewind(sent[1].end)
    again = frames(source, 40)

    assert again[0].first == sent[1].end
    assert again[-1].end == 40
    assert not source.rewind(3)  # no frame ended there
    # Ends of both rounds are known: the standby may have appended frames of either.
    assert source.acknowledge(sent[-1].end, sent[-1].chain_after)
    assert source.acknowledge(again[-1].end, again[-1].chain_after)


# --- appending (Z3) -------------------------------------------------------------------------------------------------


def test_what_is_sent_is_appended() -> None:
    log, copy = Log(singles(0, 40)), Log()
    target = receiver(copy)

    verdicts = {target.append(frame) for frame in frames(sender(log), log.end)}

    assert verdicts == {Verdict.APPENDED}
    assert copy.records == log.records
    assert target.position == log.position(40)
    assert copy.wanted == 40


def test_a_gap_is_not_appended() -> None:
    log, copy = Log(singles(0, 40)), Log()
    target = receiver(copy)
    first, second, third, *_ = frames(sender(log), log.end)
    target.append(first)

    assert target.append(third) is Verdict.GAP
    assert target.append(second) is Verdict.APPENDED
    assert copy.end == 16


def test_a_duplicate_must_be_the_same_bytes() -> None:
    log, copy = Log(singles(0, 40)), Log()
    target = receiver(copy)
    first, second, *_ = frames(sender(log), log.end)
    target.append(first)
    target.append(second)

    assert target.append(first) is Verdict.DUPLICATE
    other = Append(first.first, first.chain_before, first.chain_after, 0, 0, singles(0, 8, salt=5))
    assert target.append(other) is Verdict.FORKED
    copy.kept_from = 16  # what the ring no longer has cannot be compared, and is on disk
    assert target.append(other) is Verdict.DUPLICATE
    assert target.duplicates == 3


def test_a_frame_that_overlaps_adds_what_is_new() -> None:
    log, copy = Log(singles(0, 40)), Log()
    target = receiver(copy)
    source = sender(log)
    target.append(frames(source, 5)[0])

    wide = sender(log)
    assert target.append(frames(wide, 8)[0]) is Verdict.APPENDED
    assert copy.records == log.records[: 8 * 128]


def test_records_that_do_not_continue_our_log_are_refused() -> None:
    ours, theirs = Log(singles(0, 8)), Log(singles(0, 8, salt=1) + singles(8, 8))
    target = receiver(ours)

    (frame,) = frames(sender(theirs, start=8), 16)

    assert target.append(frame) is Verdict.FORKED
    assert ours.end == 8


def test_an_overlap_with_other_records_is_refused() -> None:
    ours, theirs = Log(singles(0, 4)), Log(singles(0, 2) + singles(2, 6, salt=1))
    target = receiver(ours)

    (frame,) = frames(sender(theirs), 8)

    assert target.append(frame) is Verdict.FORKED
    assert ours.end == 4


def test_frames_wait_for_room_and_go_on_in_order() -> None:
    log, copy = Log(singles(0, 40)), Log(room=FRAME)
    target = receiver(copy)
    sent = frames(sender(log), log.end)

    assert [target.append(frame) for frame in sent] == [Verdict.APPENDED] + [Verdict.FULL] * 4
    assert target.resume() is Verdict.FULL

    copy.room = 1 << 20
    assert target.resume() is Verdict.APPENDED
    assert copy.records == log.records
    assert target.resume() is None


def test_what_waits_is_bounded() -> None:
    log, copy = Log(singles(0, 2000)), Log(room=0)
    target = LogReceiver(copy, LogPosition(), 4 * FRAME)

    verdicts = [target.append(frame) for frame in frames(sender(log), log.end)]

    assert verdicts[:4] == [Verdict.FULL] * 4
    assert set(verdicts[4:]) == {Verdict.GAP}


def test_only_ends_of_frames_below_durable_are_acknowledged() -> None:
    log, copy = Log(singles(0, 40)), Log()
    target = receiver(copy)
    for frame in frames(sender(log), log.end):
        target.append(frame)

    assert target.durable_end(7) == log.position(0)
    assert target.durable_end(23) == log.position(16)
    assert target.durable_end(40) == log.position(40)


# --- forks (Z5) -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed_number", range(20))
def test_the_last_common_record_is_found(seed_number: int, rng: random.Random) -> None:
    common, more, theirs_more = (rng.randrange(0, 40) for _ in range(3))
    ours = Log(singles(0, common) + singles(common, more))
    theirs = Log(singles(0, common) + singles(common, theirs_more, salt=3))
    search = ForkSearch(ours.end)
    probes = 0

    while search.common is None:
        probes += 1
        assert probes < 20
        if search.probe > theirs.end:
            search.ends_at(theirs.end)
        else:
            search.answer(ours.position(search.probe).chain, theirs.position(search.probe).chain)

    expected = common if theirs_more and more else min(ours.end, theirs.end)
    assert search.common == expected


def test_an_empty_log_is_a_prefix_of_any() -> None:
    assert ForkSearch(0).common == 0
