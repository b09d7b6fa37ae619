"""Limits of use: windows of the clock, refusals, bans, and a table shared by processes."""

import multiprocessing
from pathlib import Path

from gateway.web.config import LimitsConfig
from gateway.web.limits import REFUSALS_BEFORE_BAN, SharedLimits

START_S = 1_800_000_000.0  # the beginning of a minute, of ten seconds and of five minutes


class Clock:
    def __init__(self) -> None:
        self.now = START_S

    def __call__(self) -> float:
        return self.now


def limits(path: Path, clock: Clock, **changes: int) -> SharedLimits:
    values = {
        "weight_per_minute": 100, "requests_per_5_minutes": 1000, "orders_per_10_seconds": 3, "orders_per_day": 5,
        "ban_first_s": 120, **changes,
    }  # fmt: skip
    return SharedLimits(path / "shared", LimitsConfig(**values), clock)


def test_connections_to_streams_count_per_address_and_over_all_workers(tmp_path: Path) -> None:
    clock = Clock()
    first, second = limits(tmp_path, clock), limits(tmp_path, clock)

    assert [worker.connect("a", 3) for worker in (first, second, first)] == [0, 0, 0]
    assert (second.connect("a", 3), second.connect("b", 3)) == (300, 0)
    clock.now += 299
    assert first.connect("a", 3) == 1
    clock.now += 1
    assert first.connect("a", 3) == 0
    assert first.admit("a", 40).weight == 40


def test_weight_counts_up_to_the_limit_and_again_in_the_next_minute(tmp_path: Path) -> None:
    clock = Clock()
    shared = limits(tmp_path, clock)

    assert [shared.admit("a", 40).weight for _ in range(2)] == [40, 80]
    refused = shared.admit("a", 40)
    assert (refused.retry_after_s, refused.banned) == (60, False)
    assert shared.admit("b", 40).weight == 40
    assert shared.admit("a", 40, always=True).retry_after_s == 0
    clock.now += 60
    assert shared.admit("a", 40).weight == 40


def test_weight_of_a_success_is_given_back(tmp_path: Path) -> None:
    shared = limits(tmp_path, Clock())
    shared.admit("a", 30)

    assert shared.give_back("a", 30) == 0


def test_who_goes_on_after_refusals_is_banned_and_longer_each_time(tmp_path: Path) -> None:
    clock = Clock()
    shared = limits(tmp_path, clock)

    def until_banned() -> int:
        shared.admit("a", 100)
        for tries in range(1, 1000):
            use = shared.admit("a", 100)
            if use.banned:
                assert tries == REFUSALS_BEFORE_BAN + 1
                return use.retry_after_s
        raise AssertionError("never banned")

    assert until_banned() == 120
    assert shared.admit("a", 0).banned
    clock.now += 180
    assert until_banned() == 240


def test_orders_count_per_account_in_both_windows_and_come_back(tmp_path: Path) -> None:
    clock = Clock()
    shared = limits(tmp_path, clock)

    assert [shared.orders(1, 1).ten_seconds for _ in range(3)] == [1, 2, 3]
    refused = shared.orders(1, 1)
    assert (refused.retry_after_s, refused.window, refused.limit) == (10, "10 SECOND", 3)
    shared.order_gone(1)
    assert shared.orders(1, 1).retry_after_s == 0
    assert shared.orders(2, 3).ten_seconds == 3
    clock.now += 10
    assert (shared.orders(1, 2).day, shared.orders(1, 1).window) == (5, "1 DAY")


def test_limits_of_zero_are_off(tmp_path: Path) -> None:
    off = {name: 0 for name in LimitsConfig.__dataclass_fields__}
    shared = limits(tmp_path, Clock(), **off)

    assert all(shared.admit("a", 10**6).retry_after_s == 0 for _ in range(100))
    assert all(shared.orders(1, 10).retry_after_s == 0 for _ in range(100))


def _spend(path: Path, times: int) -> None:
    shared = limits(path, Clock(), weight_per_minute=10**9, requests_per_5_minutes=10**9)
    for _ in range(times):
        shared.admit("a", 1)


def test_processes_count_together_and_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_spend, args=(tmp_path, 500)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    shared = limits(tmp_path, Clock(), weight_per_minute=10**9, requests_per_5_minutes=10**9)
    assert shared.admit("a", 0).weight == 2000


def test_placing_in_one_step_counts_what_the_single_steps_count(tmp_path: Path) -> None:
    clock = Clock()
    one, other = limits(tmp_path, clock), tmp_path / "other"
    other.mkdir()
    steps = limits(other, clock)
    for tries in range(1, 4):
        placed = one.place("a", "key k", 7)
        assert placed is not None
        steps.admit("a", 1)
        steps.give_back("a", 1)
        steps.admit("key k", 1)
        counted = steps.orders(7, 1)
        used = steps.give_back("key k", 1)
        assert (placed.weight, placed.ten_seconds, placed.day) == (used, counted.ten_seconds, counted.day)
        assert placed.ten_seconds == tries

    assert one.place("a", "key k", 7) is None  # a fourth order in ten seconds; nothing was counted
    assert one.orders(7, 0).ten_seconds == 3
    assert one.charge("key k", 5) == 5
    assert [one.admit(payer, 0).weight for payer in ("a", "key k")] == [0, 5]
    requests = [shared.admit("a", 100) for shared in (one, steps)]
    assert requests[0] == requests[1]


def test_placing_is_refused_where_a_single_step_would_be(tmp_path: Path) -> None:
    clock = Clock()
    shared = limits(tmp_path, clock, requests_per_5_minutes=5)
    shared.admit("a", 100)
    assert shared.place("a", "key k", 7) is None  # the address has no weight left
    assert shared.place("b", "key k", 7) is not None
    for _ in range(3):
        shared.admit("key k", 0)
    assert shared.place("b", "key k", 8) is not None
    assert shared.place("b", "key k", 9) is None  # the key has made its five requests
    assert shared.place("b", "key l", 9) is not None
    clock.now += 300
    assert shared.place("a", "key k", 7) is not None


def test_without_limits_placing_counts_nothing(tmp_path: Path) -> None:
    off = {"weight_per_minute": 0, "requests_per_5_minutes": 0, "orders_per_10_seconds": 0, "orders_per_day": 0}
    shared = limits(tmp_path, Clock(), **off)

    for _ in range(3):
        placed = shared.place("a", "key k", 7)
        assert placed is not None and (placed.weight, placed.ten_seconds, placed.day) == (0, 0, 0)
    assert shared.charge("key k", 5) == 0
