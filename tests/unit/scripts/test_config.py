"""The configuration: defaults hold, every key is explained, and each wrong file gets one sentence that helps."""

import dataclasses
import re
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from scripts.config import (
    CHECKOUT,
    DEFAULTS_PATH,
    UNIX_SOCKET_PATH_MAX,
    Config,
    ConfigError,
    Section,
    from_tables,
    known_keys,
    load,
)
from scripts.exit_codes import CommandError, ExitCode


def write(folder: Path, text: str) -> Path:
    path = folder / "own.toml"
    path.write_text(text)
    return path


def test_defaults_are_complete_and_valid() -> None:
    config = load()

    assert config.node.mode == "D1"
    assert config.data_dir == CHECKOUT / ".bullring"
    assert (config.gateway.binary.host, config.gateway.binary.port) == ("127.0.0.1", 9100)


def test_tables_survive_a_round_trip() -> None:
    config = load(None, {"placement.partitions": 3, "placement.matcher_processes": [[1, 2], [3]]})

    assert from_tables(config.as_tables()) == config


def test_own_file_overrides_only_what_it_names(tmp_path: Path) -> None:
    config = load(write(tmp_path, '[node]\nname = "venue-7"\n[rings]\nlog_slots = 131072\n'))

    assert config.node.name == "venue-7"
    assert config.rings.log_slots == 131072
    assert config.rings.report_slots == load().rings.report_slots


def test_relative_paths_belong_to_the_file_that_names_them(tmp_path: Path) -> None:
    config = load(write(tmp_path, '[node]\ndata_dir = "state"\n'))

    assert config.data_dir == tmp_path / "state"


def test_overrides_win_over_the_file(tmp_path: Path) -> None:
    config = load(write(tmp_path, "[capacities]\naccounts = 100\n"), {"capacities.accounts": 200})

    assert config.capacities.accounts == 200


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('[node]\nmdoe = "D0"\n', "unknown key node.mdoe; did you mean node.mode?"),
        ("[node]\naccounts = 1\n", "unknown key node.accounts; did you mean capacities.accounts?"),
        ("[zzzzzzz]\nq = 1\n", "unknown key zzzzzzz; bullring.toml lists every key"),
        ("[capacities]\naccounts = 3\n", "capacities.accounts = 3: must be 16..16777216"),
        ("[rings]\nlog_slots = 5000\n", "rings.log_slots = 5000: must be a power of two, for instance 8192"),
        ('[node]\nmode = "D7"\n', "node.mode = 'D7': must be one of D0, D1, D1a, D2, D2m"),
        ("[node]\nnode_id = true\n", "node.node_id = True: must be a whole number"),
        ("[node]\nnode_id = 1.5\n", "node.node_id = 1.5: must be a whole number"),
        ('[journal]\narchive = "yes"\n', "journal.archive = 'yes': must be true or false"),
        ("node = 5\n", "node = 5: must be a table [node]"),
        ('[gateway.binary]\nlisten = "here"\n', "gateway.binary.listen = 'here': must be \"HOST:PORT\""),
        ('[gateway.binary]\nlisten = "x:99999"\n', "gateway.binary.listen = 'x:99999': the port must be 0..65535"),
        ('[placement]\nmatcher_processes = ["a"]\n', "placement.matcher_processes = ['a']: must be a list of whole"),
        ("[placement]\nmatcher_processes = [[1]]\n", "placement.matcher_processes = [[1]]: must name each partition"),
        ('[node]\nenvironment = "production"\nmode = "D0"\n', 'node.mode = "D0": environment "production" needs'),
        ('[gateway.feed]\nline_a = ["full@here"]\n', "gateway.feed.line_a = 'full@here': must be \"KIND@HOST:PORT\""),
        ('[gateway.feed]\nline_b = ["x@h:1"]\n', "gateway.feed.line_b = 'x@h:1': must be"),
        ('[gateway.feed]\nline_a = ["all@h:0"]\n', "gateway.feed.line_a = 'all@h:0': the port must be 1..65535"),
        ("[gateway.feed]\nline_a = [1]\n", "gateway.feed.line_a = [1]: must be a list of texts"),
        ('[gateway.feed]\nlisten_web = "h:70000"\n', "gateway.feed.listen_web = 'h:70000': the port must be 0.."),
        ('[gateway.feed]\nlisten_replay = "h:70000"\n', "gateway.feed.listen_replay = 'h:70000': the port must be 0.."),
        ("[node\n", "not valid TOML"),
    ],
)
def test_wrong_file_is_refused_with_key_value_and_limit(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, text))

    assert sentence in str(caught.value)
    assert caught.value.code is ExitCode.CONFIGURATION


@pytest.mark.parametrize(
    ("binary", "replay", "snapshot"),
    [("10.0.0.1:9100", "10.0.0.1:9200", "10.0.0.1:9202"), ("[::1]:0", "[::1]:0", "[::1]:0")],
)
def test_ports_of_the_feed_follow_that_of_order_entry(binary: str, replay: str, snapshot: str) -> None:
    feed = load(None, {"gateway.binary.listen": binary}).gateway.feed

    assert (feed.listen_replay, feed.listen_snapshot) == (replay, snapshot)
    own = {"gateway.binary.listen": binary, "gateway.feed.listen_replay": "h:7"}
    assert load(None, own).gateway.feed.listen_replay == "h:7"


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"cannot read the configuration .*no\.toml"):
        load(tmp_path / "no.toml")


def test_limits_themselves_are_allowed_and_their_neighbours_are_not() -> None:
    for key, low, high in _ranges(Config, ""):
        for value in (low, high):
            load(None, {key: value})
        for value in (low - 1, high + 1):
            with pytest.raises(ConfigError):
                load(None, {key: value})


def test_long_data_path_still_has_a_usable_socket(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 120)

    config = load(None, {"node.data_dir": str(deep)})

    assert len(str(config.admin_socket)) <= UNIX_SOCKET_PATH_MAX
    assert config.data_dir == deep


def test_two_data_folders_have_different_rings(tmp_path: Path) -> None:
    first, second = (load(None, {"node.data_dir": str(tmp_path / name)}) for name in "ab")

    assert first.node.ring_prefix != second.node.ring_prefix


def _ranges(kind: type, prefix: str) -> list[tuple[str, int, int]]:
    found = []
    hints = get_type_hints(kind)
    for entry in dataclasses.fields(kind):
        hint: Any = hints[entry.name]
        if isinstance(hint, type) and issubclass(hint, Section):
            found += _ranges(hint, f"{prefix}{entry.name}.")
        elif "low" in entry.metadata and entry.name != "partitions":
            found.append((f"{prefix}{entry.name}", entry.metadata["low"], entry.metadata["high"]))
    return found


def _documented() -> dict[str, str]:
    """Return the comment above each key of bullring.toml."""
    comments: dict[str, str] = {}
    section, comment = "", ""
    for line in DEFAULTS_PATH.read_text().splitlines():
        if line.startswith("#"):
            comment += line[1:]
        elif line.startswith("["):
            section, comment = line.strip("[]"), ""
        elif "=" in line:
            comments[f"{section}.{line.split(' ')[0]}"] = comment
            comment = ""
        elif section and not line:
            comment = ""
    return comments


def test_every_key_stands_in_the_file_with_a_comment() -> None:
    comments = _documented()

    assert set(comments) == set(known_keys())
    assert [key for key, comment in comments.items() if not comment.strip()] == []


def test_commented_ranges_are_the_checked_ones() -> None:
    comments = _documented()
    wrong = []
    for key, low, high in [*_ranges(Config, ""), ("placement.partitions", 1, 31)]:
        if f"Range: {low}..{high}" not in comments[key] and "As above" not in comments[key]:
            wrong.append((key, low, high, re.findall(r"Range: \S+", comments[key])))

    assert wrong == []
