"""Faults planted into a history or into what the log says, one at a time: the check must notice each."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

from ringbuf.wire import messages as wire
from scripts.history.check import LogFacts
from scripts.history.records import Balance, History, Told

Fault = Callable[[History, LogFacts, random.Random], None]


class CannotPlant(Exception):
    """The history has nothing in it that this fault could change."""


def _some(items: list[Told], rng: random.Random) -> Told:
    if not items:
        raise CannotPlant
    return rng.choice(items)


def _answers(history: History) -> list[Told]:
    return [told for told in history.told if told.answers]


def _put(history: History, old: Told, new: Told) -> None:
    history.told[history.told.index(old)] = new


def lost(history: History, facts: LogFacts, rng: random.Random) -> None:
    told = _some(_answers(history), rng)
    del facts.requests[told.session, told.answers]


def duplicated(history: History, facts: LogFacts, rng: random.Random) -> None:
    told = _some(_answers(history), rng)
    facts.requests[told.session, told.answers] *= 2


def reordered(history: History, facts: LogFacts, rng: random.Random) -> None:
    """A request was sent only after one behind it in the log had been answered."""
    answered = sorted(_answers(history), key=lambda told: told.at)
    if len(answered) < 4:
        raise CannotPlant
    early, late = answered[len(answered) // 4], answered[-1]
    for at, sent in enumerate(history.sent):
        if (sent.session, sent.number) == (early.session, early.answers):
            history.sent[at] = replace(sent, at=late.at + 1)


def stale(history: History, facts: LogFacts, rng: random.Random) -> None:
    """A client was told again what an order was before."""
    fills = [told for told in history.told if told.template == wire.Template.ORDER_EXECUTED]
    new = _some(fills, rng)
    older = [
        told
        for told in history.told
        if told.template == new.template and told.block != new.block and (told.session, told.partition) == new.key[:2]
    ]
    _put(history, new, replace(new, block=_some(older, rng).block))


def double_fill(history: History, facts: LogFacts, rng: random.Random) -> None:
    fills = [told for told in history.told if told.template == wire.Template.ORDER_EXECUTED]
    fill = _some(fills, rng)
    end = max(told.number for told in history.told if told.key[:2] == fill.key[:2])
    history.told.append(replace(fill, number=end + 1, at=history.told[-1].at + 1))


def untold(history: History, facts: LogFacts, rng: random.Random) -> None:
    by_flow: dict[tuple[int, int], list[Told]] = {}
    for told in history.told:
        by_flow.setdefault(told.key[:2], []).append(told)
    inner = [told for flow in by_flow.values() for told in flow[1:-1]]
    history.told.remove(_some(inner, rng))


def wrong_balance(history: History, facts: LogFacts, rng: random.Random) -> None:
    if not history.balances:
        raise CannotPlant
    at = rng.randrange(len(history.balances))
    balance = history.balances[at]
    history.balances[at] = Balance(balance.account, balance.asset, balance.available + 1, balance.held)


def wrong_market(history: History, facts: LogFacts, rng: random.Random) -> None:
    if not history.market:
        raise CannotPlant
    at = rng.randrange(len(history.market))
    seen = history.market[at]
    history.market[at] = replace(seen, slot=seen.slot[:20] + bytes([seen.slot[20] ^ 1]) + seen.slot[21:])


FAULTS: dict[str, tuple[Fault, str]] = {
    "lost": (lost, "an answered request is not in the log"),
    "duplicated": (duplicated, "a request is in the log twice"),
    "reordered": (reordered, "a request stands before one that was answered before it was sent"),
    "stale": (stale, "a client was told an earlier state again"),
    "double-fill": (double_fill, "a client was told of a fill twice"),
    "untold": (untold, "a client was never told one of its reports"),
    "wrong-balance": (wrong_balance, "a client was told another balance"),
    "wrong-market": (wrong_market, "a reader saw other market data"),
}
