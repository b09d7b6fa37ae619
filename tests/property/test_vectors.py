"""Other people's test vectors, where their rules are ours (docs/MATCHING.md, section 19)."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.oracle.adapter import EngineTarget, ModelTarget
from tests.oracle.driver import MakeTarget
from tests.oracle.vectors import EXCLUDED, Differs, Unsupported, exclusion_of, read_vectors, run_vector

VECTORS_MIN = 200
AGREE_MIN = 150
TARGETS: dict[str, MakeTarget] = {"model": ModelTarget, "engine": EngineTarget}


@pytest.fixture(scope="module")
def vectors(shared_data: Path) -> list[dict[str, Any]]:
    path = shared_data / "data" / "vectors" / "matching.jsonl.gz"
    if not path.is_file():
        pytest.skip(f"no recorded vectors: {path.name} is not in the shared data")
    return list(read_vectors(path))


def verdict(vector: dict[str, Any], make_target: MakeTarget) -> str | None:
    """Return what is different, None if all agrees."""
    try:
        run_vector(vector, make_target)
    except (Differs, Unsupported) as difference:
        return str(difference)
    return None


@pytest.mark.parametrize("target", TARGETS)
def test_every_vector_agrees_or_is_excluded_for_a_reason(target: str, vectors: list[dict[str, Any]]) -> None:
    kept = [vector for vector in vectors if exclusion_of(vector["name"]) is None]
    verdicts = {vector["name"]: verdict(vector, TARGETS[target]) for vector in kept}

    assert {name: what for name, what in verdicts.items() if what is not None} == {}
    assert len(vectors) >= VECTORS_MIN
    assert len(kept) >= AGREE_MIN


def test_no_vector_is_excluded_that_would_agree(vectors: list[dict[str, Any]]) -> None:
    """A vector that agrees belongs to those that have to; and each reason has its vectors."""
    excluded = [vector for vector in vectors if exclusion_of(vector["name"]) is not None]
    agreeing = [vector["name"] for vector in excluded if verdict(vector, ModelTarget) is None]
    reasons = Counter(exclusion_of(vector["name"]) for vector in excluded)

    assert agreeing == []
    assert {why for _, why in EXCLUDED} == set(reasons)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"qty": 99}, "lq.order_book.TestAddMultiMatchBid"),
        ({"price": 1_249}, "lq.bbo_order_book.TestBboRepeatMatchBid"),
        ({"display": "3"}, "vg.orders.iceberg-orders#Iceberg_decrease_size"),
        ({"stp": "none"}, "bn.stp.G_decrement"),
    ],
)
def test_a_changed_vector_differs(change: dict[str, Any], name: str, vectors: list[dict[str, Any]]) -> None:
    """The runner can fail: with one field of one order changed the vector no longer agrees."""
    vector = next(vector for vector in vectors if vector["name"].startswith(name))
    place = next(i for i, step in enumerate(vector["steps"]) if set(change) <= set(step) and step | change != step)
    steps = [step | change if index == place else step for index, step in enumerate(vector["steps"])]

    assert verdict(vector, ModelTarget) is None
    assert verdict(vector | {"steps": steps}, ModelTarget) is not None
