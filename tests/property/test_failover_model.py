"""The failover rules, checked over every interleaving within bounds; each of them is needed."""

import pytest

from tests.kit.failover_model import Bounds, Rules, explore, without

MEMORY_RULES = "promise member solo ack_epoch gate_first incarnation commit_gate promotion_sync nonce persist".split()
DURABLE_RULES = "promise member solo ack_epoch gate_first commit_gate persist".split()


@pytest.mark.slow
@pytest.mark.parametrize(
    "rules",
    [
        pytest.param(Rules(), id="D2m"),
        pytest.param(Rules(durable_ack=True), id="D2"),
        pytest.param(
            Rules(durable_ack=True, incarnation=False, promotion_sync=False, nonce=False), id="D2 without F6 F10 F11"
        ),
    ],
)
def test_the_rules_lose_nothing_in_any_interleaving(rules: Rules) -> None:
    found = explore(rules)

    assert found.fault is None, " -> ".join(found.history)
    assert found.exhaustive
    assert found.states > 100_000


@pytest.mark.parametrize("rule", MEMORY_RULES)
def test_without_any_one_rule_something_is_lost(rule: str) -> None:
    found = explore(without(rule))

    assert found.fault is not None
    assert len(found.history) < 20


@pytest.mark.parametrize("rule", DURABLE_RULES)
def test_without_any_one_rule_something_is_lost_although_the_standby_syncs(rule: str) -> None:
    found = explore(without(rule, durable_ack=True))

    assert found.fault is not None


def test_a_search_that_was_cut_off_says_so() -> None:
    found = explore(bounds=Bounds(states=1000))

    assert not found.exhaustive
