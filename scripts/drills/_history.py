"""Judges a history: what clients were told against the logs of both nodes and the state that follows from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from struct import Struct

from journaler import JournalError, LogReader
from journaler.chain import position_at
from journaler.recover import recover
from ringbuf.wire.messages import Template
from scripts.drills import Outcome
from scripts.drills._load import SessionHistory
from scripts.rebuild import STAMP_OFFSET, rebuild

_HEAD = Struct("<IHHIBBHQ")
_STAMP = Struct("<Q")
SLOT_SIZE = 128
REQUESTS_FROM = 100
REQUESTS_END = int(Template.ORDER_ACCEPTED)
SESSION_ADMIN = 1


@dataclass
class LogFacts:
    """What a node's log says of clients' requests."""

    end: int
    requests: Counter[tuple[int, int]] = field(default_factory=Counter)  # (session, number) -> records
    last_ns: int = 0
    back_at: int | None = None  # the first record that is older than the one before


def read_log(journal: Path) -> LogFacts:
    """Verify a journal and count its requests. Raises JournalError."""
    facts = LogFacts(recover(journal).position.sequence)
    for first, slots in LogReader(journal).batches(0):
        for at in range(0, len(slots), SLOT_SIZE):
            session, _, template, _, _, _, _, number = _HEAD.unpack_from(slots, at)
            (time_ns,) = _STAMP.unpack_from(slots, at + STAMP_OFFSET)
            if time_ns < facts.last_ns and facts.back_at is None:
                facts.back_at = first + at // SLOT_SIZE
            facts.last_ns = time_ns
            if session > SESSION_ADMIN and REQUESTS_FROM <= template < REQUESTS_END:
                facts.requests[session, number] += 1
    return facts


def judge(outcome: Outcome, histories: Mapping[str, SessionHistory], journals: Mapping[str, Path]) -> None:
    """Fill in acked_lost, acked_dup, orders_rejected, hash_equal and conservation_ok; say what is wrong."""
    logs: dict[str, LogFacts] = {}
    for name, journal in journals.items():
        try:
            logs[name] = read_log(journal)
        except JournalError as error:
            outcome.problem(f"the journal of {name} is refused: {error}")
    if len(logs) != len(journals):
        return
    for name, log in logs.items():
        outcome.check(log.back_at is None, f"time in the log of {name} goes back at record {log.back_at}")
    _judge_requests(outcome, histories, max(logs.values(), key=lambda log: log.end))
    _judge_states(outcome, journals, min(log.end for log in logs.values()))


def _judge_requests(outcome: Outcome, histories: Mapping[str, SessionHistory], log: LogFacts) -> None:
    lost = rejected = 0
    for name, history in histories.items():
        for number, answer in history.answers.items():
            lost += log.requests[history.session, number] == 0
            rejected += answer.kind == "OrderRejected"
        if history.unanswered:
            outcome.problem(f"{name}: {len(history.unanswered)} requests were never answered")
        for problem in history.problems:
            outcome.problem(f"{name}: {problem}")
    duplicated = sum(count > 1 for count in log.requests.values())
    outcome.add(acked_lost=lost, acked_dup=duplicated, orders_rejected=rejected)
    outcome.check(lost == 0, f"{lost} acknowledged requests are not in the log")
    outcome.check(duplicated == 0, f"{duplicated} requests are in the log more than once")


def _judge_states(outcome: Outcome, journals: Mapping[str, Path], common: int) -> None:
    """The nodes ended one after the other: the logs are the same as far as both go, and so are the states."""
    positions = {name: position_at(journal, common) for name, journal in journals.items()}
    same = len(set(positions.values())) == 1 and None not in positions.values()
    outcome.check(same, f"the logs of the nodes differ below {common}: {positions}")
    states = {name: rebuild(journal, common) for name, journal in journals.items()}
    for name, state in states.items():
        outcome.check(not state.fault, f"the state that follows from the log of {name} is not sound: {state.fault}")
    equal = len({state.state_hash for state in states.values()}) == 1
    outcome.check(equal or not same, "one log, two states")
    outcome.facts["hash_equal"] = outcome.facts.get("hash_equal", True) and equal
    sound = not any(state.fault for state in states.values())
    outcome.facts["conservation_ok"] = outcome.facts.get("conservation_ok", True) and sound
