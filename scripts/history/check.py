"""Judge a history against the log: exactly once, in real-time order, every word as the log gives it.

The log is replayed from its beginning or from a snapshot before the history; what clients saw must be what comes out.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from engine import Replica
from journaler import LogReader
from ringbuf.wire import messages as wire
from scripts.history.records import History
from scripts.snapshots.replaying import SLOT_SIZE, follow

BLOCK_OFFSET = 32
FIRST_REQUEST, END_OF_REQUESTS = 100, int(wire.Template.ORDER_ACCEPTED)
LOG = np.dtype(
    {
        "names": ["session", "template", "number"],
        "formats": ["<u4", "<u2", "<u8"],
        "offsets": [0, 6, 16],
        "itemsize": SLOT_SIZE,
    }
)
REPORT = np.dtype(
    {
        "names": ["session", "template", "number", "in_seq"],
        "formats": ["<u4", "<u2", "<u4", "<u8"],
        "offsets": [0, 4, 16, 24],
        "itemsize": SLOT_SIZE,
    }
)
# What the sequencer leaves as the client wrote it.
UNTOUCHED = ("cl_ord_id", "instrument_id", "order_qty", "side", "ord_type")
SHOWN = 5


@dataclass
class LogFacts:
    """What the log says of some sessions: requests as they stand in it, reports as they follow from it."""

    requests: dict[tuple[int, int], list[tuple[int, int, bytes]]] = field(default_factory=dict)
    reports: dict[tuple[int, int, int], tuple[int, bytes]] = field(default_factory=dict)
    market: dict[tuple[int, int], bytes] = field(default_factory=dict)
    balances: dict[tuple[int, int], tuple[int, int]] = field(default_factory=dict)
    end: int = 0
    state_hash: str = ""
    unsound: str = ""


def read_log(journal: Path, replica: Replica, to: int, history: History) -> LogFacts:
    """Replay the log and note what concerns the history's sessions. Raises SnapshotError, EngineError, JournalError."""
    facts = LogFacts()
    sessions = np.array(sorted(history.sessions), dtype=np.uint32)
    wanted = {(each.partition, each.sequence) for each in history.market}

    def reports(partition: int, _: int, slots: bytes) -> None:
        rows = np.frombuffer(slots, dtype=REPORT)
        for at in np.flatnonzero(np.isin(rows["session"], sessions) & (rows["number"] > 0)):
            row, block = rows[at], slots[int(at) * SLOT_SIZE + BLOCK_OFFSET : (int(at) + 1) * SLOT_SIZE]
            facts.reports[int(row["session"]), partition, int(row["number"])] = (int(row["template"]), block)

    def market(partition: int, first: int, slots: bytes) -> None:
        for at in range(len(slots) // 64):
            if (partition, first + at) in wanted:
                facts.market[partition, first + at] = slots[at * 64 : at * 64 + 64]

    for first, records in LogReader(journal).batches(replica.position, to):
        rows = np.frombuffer(records, dtype=LOG)
        ours = np.isin(rows["session"], sessions) & (rows["number"] > 0)
        ours &= (rows["template"] >= FIRST_REQUEST) & (rows["template"] < END_OF_REQUESTS)
        for at in np.flatnonzero(ours):
            row, start = rows[at], int(at) * SLOT_SIZE
            entry = (first + int(at), int(row["template"]), records[start + BLOCK_OFFSET : start + 112])
            facts.requests.setdefault((int(row["session"]), int(row["number"])), []).append(entry)
    follow(journal, replica, to, outputs=reports, market=market)
    facts.end, facts.state_hash, facts.unsound = to, replica.state_hash().hex(), replica.check()
    for balance in history.balances:
        facts.balances[balance.account, balance.asset] = replica.sequencer.balance(balance.account, balance.asset)
    return facts


@dataclass
class Verdict:
    """What a check found. `problems` by what kind of fault they are."""

    problems: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    acknowledged: int = 0
    unknown: int = 0  # sent, never answered: they may be in the log or not
    unknown_in_log: int = 0
    reports: int = 0
    market: int = 0

    def problem(self, kind: str, text: str) -> None:
        self.problems[kind].append(text)

    @property
    def sentences(self) -> list[str]:
        """Every problem, at most a few of each kind."""
        lines = []
        for kind, texts in self.problems.items():
            lines += [f"{kind}: {text}" for text in texts[:SHOWN]]
            if len(texts) > SHOWN:
                lines.append(f"{kind}: and {len(texts) - SHOWN} more")
        return lines


def judge(history: History, facts: LogFacts) -> Verdict:
    """Compare everything the clients saw with what the log says."""
    verdict = Verdict(reports=len(history.told), market=len(history.market))
    _requests(history, facts, verdict)
    _reports(history, facts, verdict)
    _real_time(history, facts, verdict)
    for balance in history.balances:
        there = facts.balances.get((balance.account, balance.asset), (0, 0))
        if there != (balance.available, balance.held):
            verdict.problem(
                "balance",
                f"account {balance.account}, asset {balance.asset}: the client was told "
                f"{(balance.available, balance.held)}, the log gives {there}",
            )
    for seen in history.market:
        if facts.market.get((seen.partition, seen.sequence)) != seen.slot:
            verdict.problem("market", f"market data {seen.sequence} of partition {seen.partition} is not the log's")
    if facts.unsound:
        verdict.problem("state", facts.unsound)
    return verdict


def _requests(history: History, facts: LogFacts, verdict: Verdict) -> None:
    answered = {(told.session, told.answers) for told in history.told if told.answers}
    verdict.acknowledged = len(answered)
    for session, number in sorted(answered):
        if (session, number) not in facts.requests:
            verdict.problem("lost", f"request {number} of session {session} was answered and is not in the log")
    for (session, number), entries in facts.requests.items():
        if len(entries) > 1:
            places = [sequence for sequence, _, _ in entries]
            verdict.problem("duplicated", f"request {number} of session {session} is in the log at {places}")
    for sent in history.sent:
        in_log = facts.requests.get((sent.session, sent.number))
        if (sent.session, sent.number) not in answered:
            verdict.unknown += 1
            verdict.unknown_in_log += in_log is not None
        if in_log is not None and not _is_request(sent.template, sent.block, *in_log[0][1:]):
            verdict.problem(
                "altered", f"request {sent.number} of session {sent.session} is in the log at {in_log[0][0]} as another"
            )
    for session in history.sessions:
        numbers = sorted(number for each, number in facts.requests if each == session)
        if numbers and numbers != list(range(numbers[0], numbers[-1] + 1)):
            verdict.problem("gap", f"the numbers of session {session} in the log are not contiguous")
        order = [facts.requests[session, number][0][0] for number in numbers]
        if order != sorted(order):
            verdict.problem("order", f"the requests of session {session} are not in the order of their numbers")


def _is_request(template: int, block: bytes, logged_template: int, logged_block: bytes) -> bool:
    if template != logged_template:
        return False
    kind = wire.MESSAGES[template]
    mine, theirs = kind.unpack(block), kind.unpack(logged_block)
    return all(getattr(mine, name, 0) == getattr(theirs, name, 0) for name in UNTOUCHED)


def _reports(history: History, facts: LogFacts, verdict: Verdict) -> None:
    numbers: dict[tuple[int, int], list[int]] = defaultdict(list)
    seen: dict[tuple[int, int, int], bytes] = {}
    for told in history.told:
        if told.key in seen:
            kind = "repeated" if seen[told.key] == told.block else "contradiction"
            verdict.problem(kind, f"report {told.key} (session, partition, number) came twice")
        seen[told.key] = told.block
        numbers[told.session, told.partition].append(told.number)
        template, block = facts.reports.get(told.key, (0, b""))
        if template != told.template or block[: len(told.block)] != told.block:
            verdict.problem("told otherwise", f"report {told.key} is not what the log gives: {told.message}")
    made: dict[tuple[int, int], int] = defaultdict(int)
    for session, partition, number in facts.reports:
        made[session, partition] = max(made[session, partition], number)
    for (session, partition), came in numbers.items():
        if came != sorted(came):
            verdict.problem("order", f"reports of session {session}, partition {partition} came out of order")
        ends = made[session, partition] if session in history.complete else max(came)
        missing = sorted(set(range(min(came), ends + 1)) - set(came))
        if missing:
            verdict.problem(
                "untold", f"session {session} was never told reports {missing[:SHOWN]} of partition {partition}"
            )


def _real_time(history: History, facts: LogFacts, verdict: Verdict) -> None:
    """Whatever was answered before a request was sent stands before it in the log."""
    place = {key: entries[0][0] for key, entries in facts.requests.items()}
    answers: dict[tuple[int, int], int] = {}
    for told in history.told:
        key = (told.session, told.answers)
        if told.answers and (key not in answers or told.at < answers[key]):
            answers[key] = told.at
    moments: Iterable[tuple[int, int, tuple[int, int]]] = heapq.merge(
        sorted((at, 0, key) for key, at in answers.items()),
        sorted((sent.at, 1, (sent.session, sent.number)) for sent in history.sent),
    )
    newest = -1
    for _, is_sent, key in moments:
        sequence = place.get(key)
        if sequence is None:
            continue
        if not is_sent:
            newest = max(newest, sequence)
        elif sequence < newest:
            verdict.problem(
                "real time",
                f"request {key[1]} of session {key[0]} stands at {sequence}, before {newest}, which was answered "
                "before it was sent",
            )
