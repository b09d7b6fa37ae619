"""The suite of tracebook-conformance (PyPI) against the model: another author's reference, profiles and traces."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from tracebook.conformance import (
    ConformanceConfig,
    ConformanceSuite,
    ExternalProcessAdapterFactory,
    campaign_profile_names,
    copy_bundled_conformance_suite,
    run_campaign,
    run_conformance,
    run_qualification,
)

from tests.oracle.adapter import Fault, ModelTarget
from tests.oracle.conformance import MISSING, Candidate, factory
from tests.oracle.faults import FAULTS

ROOT = Path(__file__).resolve().parents[2]
# What is qualified: the engine too, once it has the order types (reductions are amends, replaces cancel-replaces).
TARGETS = ("model", "engine")
TRACES = int(os.environ.get("BULLRING_CONFORMANCE_TRACES", "6"))
EVENTS = 120


@pytest.fixture
def suite(tmp_path: Path) -> ConformanceSuite:
    return copy_bundled_conformance_suite(tmp_path / "suite", suite_version="v2")


@pytest.mark.parametrize("target", TARGETS)
def test_every_case_of_the_suite_conforms_or_is_missing_by_name(target: str, suite: ConformanceSuite) -> None:
    conforming = []
    for case in suite.cases:
        if case.name in MISSING:
            continue
        report = run_conformance(case.load_events(), factory(target), config=case.config, trace_name=case.name)
        assert report.conformant, f"{case.name}: {report.divergence}"
        conforming.append(case.name)

    assert sorted([*conforming, *MISSING]) == sorted(case.name for case in suite.cases)


def test_missing_feature_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="first in, first out"):
        factory("model")(ConformanceConfig(matching_algorithm="pro_rata"))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("profile", campaign_profile_names())
def test_every_profile_qualifies(target: str, profile: str) -> None:
    """Fixed cases and generated traces; all capabilities of the profile are covered."""
    result = run_qualification(factory(target), profile, traces=TRACES, events_per_trace=EVENTS)

    assert result.campaign.failure is None, str(result.campaign.failure)
    assert result.qualified


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_the_protocol_on_stdin_and_stdout_qualifies(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way the suite's own command drives a candidate: a process of its own."""
    monkeypatch.chdir(ROOT)
    command = [sys.executable, "-m", "tests.oracle.conformance", target]
    candidates = ExternalProcessAdapterFactory(command, timeout_seconds=60.0, cwd=ROOT)

    result = run_campaign(candidates, "fifo-full-v1", traces=2, events_per_trace=60)

    assert result.conformant, str(result.failure)


@pytest.mark.parametrize("name", ["last in first out", "trade at the taker's price"])
def test_the_suite_finds_planted_faults(name: str) -> None:
    fault: Fault = next(fault for fault in FAULTS if fault.name == name)

    result = run_campaign(
        lambda config: Candidate(config, lambda world: ModelTarget(world, fault), "faulty"),
        "fifo-full-v1",
        traces=TRACES,
        events_per_trace=EVENTS,
        max_minimize_runs=5,
    )

    assert not result.conformant
