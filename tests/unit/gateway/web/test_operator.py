"""What the operator is told: of everything that is wrong, and nothing else; what is kept while nobody looks."""

import asyncio
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from aiohttp.test_utils import make_mocked_request

from gateway.web import operator as module
from gateway.web.errors import ApiError
from gateway.web.operator import OperatorData, Sources, alerts, book_alerts

FINE = {
    "running": True,
    "processes": [{"process": "web-0", "state": "running", "restarts": 0}],
    "rings": [{"ring": "log", "slots": 100, "lags": {"journaler": 50}}],
    "storage": {"slow": False, "level": "ok", "text": "room enough"},
    "ledger": {"differences": [], "trouble": ""},
}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({}, []),
        ({"running": False}, ["not complete"]),
        ({"processes": [{"process": "web-0", "state": "gone", "restarts": 2}]}, ["web-0 is gone", "again 2 times"]),
        ({"rings": [{"ring": "log", "slots": 100, "lags": {"journaler": 51}}]}, ["journaler is 51 of 100"]),
        ({"storage": {"slow": True, "level": "ok", "text": "slow"}}, ["Storage: slow"]),
        ({"storage": {"slow": False, "level": "low", "text": "little room"}}, ["little room"]),
        ({"ledger": {"differences": ["a of b"], "trouble": "store away"}}, ["differs: a of b", "store away"]),
    ],
)
def test_operator_is_told_what_is_wrong_and_nothing_else(change: dict[str, object], told: list[str]) -> None:
    found = alerts({**FINE, **change}, [{"pair": "BTCUSDT", "status": "TRADING"}])

    assert len(found) == len(told)
    assert all(part in sentence for part, sentence in zip(told, found, strict=True))


def test_market_that_does_not_trade_is_told() -> None:
    assert alerts(FINE, [{"pair": "BTCUSDT", "status": "HALT"}]) == ["BTCUSDT is HALT."]


BOOKS: dict[str, Any] = {
    "sums": {"BTC": "0.00000000", "USDT": "0.00"},
    "reconciliations": [{"kind": "store", "position": 7, "differences": 0, "first_difference": ""}],
}
DIFFERS = {"kind": "recount", "position": 9, "differences": 2, "first_difference": "account 3, BTC"}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({}, []),
        ({"sums": {"BTC": "-0.00000001", "USDT": "0.00"}}, ["BTC sums to -0.00000001"]),
        ({"reconciliations": [DIFFERS, *BOOKS["reconciliations"]]}, ["2 differences at record 9: account 3, BTC"]),
        ({"reconciliations": [*BOOKS["reconciliations"], DIFFERS]}, []),  # it has been put right since
        ({"trouble": "connection refused"}, ["does not answer: connection refused"]),
    ],
)
def test_operator_is_told_what_is_wrong_with_the_books(change: dict[str, object], told: list[str]) -> None:
    found = book_alerts({**BOOKS, **change})

    assert len(found) == len(told)
    assert all(part in sentence for part, sentence in zip(told, found, strict=True))
    assert book_alerts(None) == []


def facts(per_s: int) -> dict[str, Any]:
    log = {"ring": "log", "slots": 100, "per_s": per_s, "lags": {"journaler": 5}}
    row = {"process": "fused", "what": "match_ns", "p50_us": 1.0, "p99_us": 2.0, "p99.9_us": 3.0, "count": 9}
    latency = [{**row, "period": "now"}, {**row, "what": "old_ns", "period": "since start"}]
    return {**FINE, "rings": [log], "latency": latency, "ledger": None, "counters": {}}


class Asked:
    """What the page has its facts from."""

    def __init__(self) -> None:
        self.looks = 0
        self.books_fail = self.exchange_fails = False

    def exchange(self) -> dict[str, Any]:
        if self.exchange_fails:
            raise OSError("it does not run")
        self.looks += 1
        return facts(self.looks)

    def books(self) -> dict[str, Any]:
        if self.books_fail:
            raise OSError("nobody there")
        return dict(BOOKS)


async def ask(data: OperatorData, query: str = "") -> Any:
    transport = SimpleNamespace(
        get_extra_info=lambda name, default=None: ("127.0.0.1", 1) if name == "peername" else None
    )
    request = make_mocked_request("GET", f"/operator/data{query}", {"Host": "127.0.0.1:8080"}, transport=transport)
    answer: Any = await data.handle(request)
    return orjson.loads(answer.body)


def test_samples_are_taken_while_nobody_looks_and_the_books_only_are_asked_when_somebody_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in (("SAMPLE_EVERY_S", 0.01), ("UNSEEN_EVERY_S", 0.02), ("BOOKS_EVERY_S", 0.02)):
        monkeypatch.setattr(module, name, value)
    asked = Asked()
    gateway: Any = SimpleNamespace(reference=SimpleNamespace(instruments={}))

    async def scenario() -> None:
        data = OperatorData(gateway, Sources(asked.exchange, asked.books), "")
        running = asyncio.create_task(data.run())
        async with asyncio.timeout(30):
            while asked.looks < 3:
                await asyncio.sleep(0.01)
            first = await ask(data)
            assert first["books"] is None
            [newest] = first["samples"][-1:]
            assert newest["latency"] == {"fused match_ns": [1.0, 2.0, 3.0]}
            assert (newest["lag"], newest["ledger_lag"]) == (5, None)
            assert (await ask(data, f"?since={newest['at'] + 1000}"))["samples"] == []
            while (await ask(data))["books"] is None:
                await asyncio.sleep(0.01)
            asked.books_fail = True
            while not (told := await ask(data))["alerts"]:
                await asyncio.sleep(0.01)
            assert told["alerts"] == ["The ledger does not answer: nobody there"]
            assert told["books"]["sums"] == BOOKS["sums"]  # the last ones known
            asked.exchange_fails = True
            await asyncio.sleep(0.05)
            with pytest.raises(ApiError, match="it does not run"):
                await ask(data)
            assert not running.done()
        running.cancel()

    asyncio.run(scenario())
