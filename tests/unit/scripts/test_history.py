"""The history check: a true history passes, and each planted fault is noticed for what it is."""

import copy
import json
import random
from pathlib import Path

import pytest

from engine import Places, Replica
from ringbuf.wire import messages as wire
from scripts.cli import main
from scripts.exit_codes import CommandError, ExitCode
from scripts.history.check import LogFacts, judge, read_log
from scripts.history.faults import FAULTS
from scripts.history.records import Balance, History, MarketSlot, Sent, Told
from tests.kit.images import SLOT_SIZE, Log, replica_at, small_log, write_log

NOTICED_AS = {
    "lost": "lost",
    "duplicated": "duplicated",
    "reordered": "real time",
    "stale": "told otherwise",
    "double-fill": "told otherwise",
    "untold": "untold",
    "wrong-balance": "balance",
    "wrong-market": "market",
}
BLOCK = 32


def true_history(log: Log) -> History:
    """What honest clients would have written: each request sent after the answer to the one before."""
    history = History()
    sessions = set()
    clock = iter(range(1, 1 << 60))
    answers: dict[int, list[Told]] = {}

    def told(partition: int, _: int, slots: bytes) -> None:
        for at in range(0, len(slots), SLOT_SIZE):
            slot = slots[at : at + SLOT_SIZE]
            session, template = int.from_bytes(slot[0:4], "little"), int.from_bytes(slot[4:6], "little")
            number, cause = int.from_bytes(slot[16:20], "little"), int.from_bytes(slot[24:32], "little")
            if number and session > 1:
                block = wire.MESSAGES[template].unpack(slot, BLOCK).pack()
                answers.setdefault(cause, []).append(Told(session, partition, number, 0, template, block))

    def market(partition: int, first: int, slots: bytes) -> None:
        for at in range(len(slots) // 64):
            history.market.append(MarketSlot(partition, first + at, slots[at * 64 : at * 64 + 64]))

    replica = Replica(log.config)
    replica.open(Places(), {})
    replica.feed(0, log.slots, outputs=told, market=market)
    for sequence in range(log.end):
        slot = log.between(sequence, sequence + 1)
        session, template = int.from_bytes(slot[0:4], "little"), int.from_bytes(slot[6:8], "little")
        number = int.from_bytes(slot[16:24], "little")
        if session > 1 and number and 100 <= template < 200:
            sessions.add(session)
            block = wire.MESSAGES[template].unpack(slot, BLOCK).pack()
            history.sent.append(Sent(session, number, next(clock), template, block))
        for report in answers.get(sequence, []):
            history.told.append(
                Told(report.session, report.partition, report.number, next(clock), report.template, report.block)
            )
    history.balances = [
        Balance(account, asset, *replica.sequencer.balance(account, asset)) for account in (1, 2) for asset in (1, 2)
    ]
    history.complete = sessions
    replica.close()
    return history


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, History, LogFacts]:
    log = small_log(seconds=3, orders=40)
    data = tmp_path_factory.mktemp("history") / "data"
    write_log(data / "journal", log)
    history = true_history(log)
    replica = replica_at(log, 0)
    facts = read_log(data / "journal", replica, log.end, history)
    replica.close()
    return data, history, facts


def test_a_true_history_passes(case: tuple[Path, History, LogFacts]) -> None:
    _, history, facts = case

    verdict = judge(history, facts)

    assert verdict.sentences == []
    assert verdict.acknowledged == len(history.sent) > 100
    assert verdict.unknown == 0


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("seed", range(5))
def test_each_fault_is_noticed(case: tuple[Path, History, LogFacts], name: str, seed: int) -> None:
    _, history, facts = case
    changed, known = copy.deepcopy(history), copy.deepcopy(facts)
    FAULTS[name][0](changed, known, random.Random(seed))

    assert NOTICED_AS[name] in judge(changed, known).problems


def test_a_request_that_was_never_answered_may_be_in_the_log_or_not(case: tuple[Path, History, LogFacts]) -> None:
    _, history, facts = case
    changed = copy.deepcopy(history)
    asked = changed.sent[-1]
    changed.told = [told for told in changed.told if (told.session, told.answers) != (asked.session, asked.number)]
    changed.complete = set()
    changed.sent.append(Sent(asked.session, asked.number + 1, asked.at + 10**6, asked.template, asked.block))

    verdict = judge(changed, facts)

    assert "lost" not in verdict.problems
    assert (verdict.unknown, verdict.unknown_in_log) == (2, 1)


def test_the_command_reads_files_and_plants_every_fault(
    case: tuple[Path, History, LogFacts], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, history, _ = case
    file = tmp_path / "history"
    lines: list[dict[str, object]] = [
        {"kind": "sent", "session": each.session, "number": each.number, "at": each.at, "template": each.template,
         "block": each.block.hex()}
        for each in history.sent
    ]  # fmt: skip
    lines += [
        {"kind": "report", "session": each.session, "partition": each.partition, "number": each.number, "at": each.at,
         "template": each.template, "block": each.block.hex()}
        for each in history.told
    ]  # fmt: skip
    lines += [{"kind": "market", "partition": m.partition, "sequence": m.sequence, "slot": m.slot.hex()}
              for m in history.market]  # fmt: skip
    lines += [{"kind": "balance", "account": b.account, "asset": b.asset, "available": b.available, "held": b.held}
              for b in history.balances]  # fmt: skip
    lines += [{"kind": "complete", "session": session} for session in history.complete]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))

    assert main(["history", "check", "--data", str(data), "--json", str(file)]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out)["verdict"] == "pass"
    assert main(["history", "check", "--data", str(data), "--json", "--plant", "lost", str(file)]) == ExitCode.NEGATIVE
    assert json.loads(capsys.readouterr().out)["acked_lost"] == 1
    assert main(["history", "check", "--data", str(data), "--json", "--controls", str(file)]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out)["missed"] == []


@pytest.mark.parametrize("line", ["{", '{"kind": "other"}', '{"kind": "complete"}', '{"kind": "sent", "session": 1}'])
def test_a_line_that_is_none_is_named(tmp_path: Path, line: str) -> None:
    file = tmp_path / "history"
    file.write_text('{"kind": "complete", "session": 1}\n' + line + "\n")

    with pytest.raises(ValueError, match="history, line 2: no line of a history"):
        History.load([file])


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    from scripts import history_command

    with pytest.raises(CommandError, match="nothing here"):
        history_command.run(["check", "--data", str(tmp_path), str(tmp_path / "nothing here")])
