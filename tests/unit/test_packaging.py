"""Our folder names are generic, so the environment must hold no other distribution that claims one of them."""

import importlib.util
import tomllib
from collections.abc import Mapping, Sequence
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import pytest

from scripts.native import binary
from tests.kit.source import PACKAGES

ROOT = Path(__file__).resolve().parents[2]
DISTRIBUTION = "bullring-exchange"


def strangers(owners: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Return which of our names others claim too."""
    claimed = {name: sorted(set(owners.get(name, ())) - {DISTRIBUTION}) for name in PACKAGES}
    return {name: others for name, others in claimed.items() if others}


def test_names_belong_to_our_distribution_alone() -> None:
    assert strangers(packages_distributions()) == {}


def test_name_claimed_by_a_stranger_is_found() -> None:
    owners = {"ringbuf": ["ringbuf", DISTRIBUTION], "engine": [DISTRIBUTION], "numpy": ["numpy"]}

    assert strangers(owners) == {"ringbuf": ["ringbuf"]}


@pytest.mark.parametrize("name", PACKAGES)
def test_package_is_found_in_this_checkout(name: str) -> None:
    spec = importlib.util.find_spec(name)

    assert spec is not None
    assert spec.origin is not None
    assert Path(spec.origin).resolve() == ROOT / name / "__init__.py"


def test_installed_version_is_the_one_of_pyproject() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]

    assert distribution(DISTRIBUTION).version == project["version"]
    assert project["name"] == DISTRIBUTION


def test_wheel_holds_exactly_our_packages() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        tools = tomllib.load(file)["tool"]

    assert tuple(tools["scikit-build"]["wheel"]["packages"]) == PACKAGES
    assert tuple(tools["mypy"]["files"]) == PACKAGES


def test_command_of_the_readme_is_installed() -> None:
    commands = {entry.name: entry.value for entry in distribution(DISTRIBUTION).entry_points}

    assert commands["bullring"] == "scripts.cli:main"


def test_native_executable_that_is_not_there_is_named() -> None:
    with pytest.raises(FileNotFoundError, match="no_such_bench"):
        binary("no_such_bench")
