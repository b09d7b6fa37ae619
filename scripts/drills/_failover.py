"""The course of every failover drill: load, fault, waiting until all is well again, judgement."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from scripts.drills import Context, Outcome
from scripts.drills._cluster import OBSERVERS, ClusterSite
from scripts.drills._history import judge
from scripts.drills._load import Answer, Load, SessionHistory

WARM_S = 1.0
AFTER_S = 1.0
RECOVERS_S = 60.0


@dataclass(frozen=True)
class Failover:
    """A fault that was made: when, and how it is set right again."""

    at: float
    undo: Callable[[], None]


def play(
    context: Context,
    fault: Callable[[ClusterSite], Failover],
    *,
    takes_over: bool,
    overrides: Mapping[str, Any] | None = None,
    prepare: Callable[[ClusterSite], None] = lambda site: None,
) -> Outcome:
    """Play the fault `runs` times against one cluster under load.

    `takes_over`: an epoch must follow; without it none may. `prepare` is called before the nodes are started.
    """
    outcome = Outcome({"runs": 0, "rto_ms": [], "acked_before": 0, "unknown_resolved": 0})
    settings = dict(OBSERVERS if context.options.get("observers") else {}) | dict(overrides or {})
    with ClusterSite(context, context.folder, settings) as site:
        prepare(site)
        site.begin()
        outcome.facts["epoch_from"] = site.epoch()
        load = Load(site.accounts, site.addresses, rate_per_s=context.options.get("rate", 200), seed=context.seed)
        load.start()
        for _ in context.rounds():
            if not _round(context, site, load, fault, outcome, takes_over=takes_over):
                break
        outcome.check(load.finish(), "some requests were never answered")
        site.settled()
        outcome.facts["epoch_to"] = site.epoch()
        outcome.add(reconnects=sum(history.reconnects for history in load.histories.values()))
        codes = site.stop()
        outcome.check(set(codes.values()) == {0}, f"the nodes did not end in order: {codes}, {site.describe()}")
        if context.planted == "forged":
            _forge(load.histories)
        judge(outcome, load.histories, {name: node.config.journal_dir for name, node in site.nodes.items()})
    _summarize(outcome)
    return outcome


def _round(
    context: Context,
    site: ClusterSite,
    load: Load,
    fault: Callable[[ClusterSite], Failover],
    outcome: Outcome,
    *,
    takes_over: bool,
) -> bool:
    if not site.settled():
        outcome.problem(f"no standby in sync before the fault: {site.describe()}")
        return False
    time.sleep(WARM_S)  # some load before the fault; nothing waits for it
    before, epoch = load.answered, site.epoch()
    outcome.facts.setdefault("t_fault", context.now)
    made = fault(site)
    changed = context.wait(lambda: site.epoch() > epoch, deadline_s=RECOVERS_S if takes_over else 0)
    detected = [said.at for node in site.nodes.values() for said in list(node.states) if said.at >= made.at]
    if takes_over and detected:
        outcome.facts.setdefault("t_detect", round(min(detected) - context.began, 6))
    outcome.check(changed or not takes_over, f"epoch {epoch} was not followed by another: {site.describe()}")
    if not _answers_again(context, load):
        outcome.problem(f"no answer within {RECOVERS_S} s of the fault: {site.describe()}")
        made.undo()
        return False
    time.sleep(AFTER_S)
    stayed = takes_over or site.epoch() == epoch
    outcome.check(stayed, f"epoch {epoch} was followed by another without need: {site.describe()}")
    last, first = _longest_pause(load, made.at - 0.5)
    outcome.facts["rto_ms"].append(round((first - last) * 1000, 1))
    outcome.facts.setdefault("t_first_ack", round(first - context.began, 6))
    outcome.facts["acked_before"] = before  # since the drill began
    outcome.add(runs=1, unknown_resolved=_resolved(load, made.at, first))
    made.undo()
    return True


def _answers_again(context: Context, load: Load) -> bool:
    """Wait until requests sent from now on are answered, to every client."""
    now = time.monotonic()

    def answered() -> bool:
        return all(_sent_after(history, now) for history in load.histories.values())

    return context.wait(answered, deadline_s=RECOVERS_S, pause_s=0.005)


def _sent_after(history: SessionHistory, at: float) -> bool:
    return any(history.sent.get(number, 0.0) > at for number in list(history.answers)[-20:])


def _longest_pause(load: Load, since: float) -> tuple[float, float]:
    """Return the longest time without any new answer to anybody: its beginning and its end."""
    times = sorted(answer.at for history in load.histories.values() for answer in list(history.answers.values()))
    around = [at for at in times if at > since]
    _, last, first = max((second - first, first, second) for first, second in pairwise(around))
    return last, first


def _resolved(load: Load, fault: float, first: float) -> int:
    """Requests that were under way at the fault, and whose outcome their clients learned afterwards."""
    resolved = 0
    for history in load.histories.values():
        answers = dict(history.answers)  # first: the clients go on, and what is answered was sent
        sent = dict(history.sent)
        resolved += sum(sent[number] < fault and answers[number].at >= max(fault, first) for number in answers)
    return resolved


def _forge(histories: Mapping[str, SessionHistory]) -> None:
    history = next(iter(histories.values()))
    history.sent[10**9] = 0.0
    history.answers[10**9] = Answer(0.0, "OrderAccepted", (1, 10**9))


def _summarize(outcome: Outcome) -> None:
    times = sorted(outcome.facts.pop("rto_ms"))
    if times:
        outcome.facts |= {"rto_ms": _at(times, 0.5), "rto_ms_p99": _at(times, 0.99), "rto_ms_max": times[-1]}


def _at(times: list[float], share: float) -> float:
    return times[max(0, math.ceil(share * len(times)) - 1)]
