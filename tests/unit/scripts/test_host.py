"""The checks of a host: each sees what is wrong, none changes anything unless asked."""

import json
from pathlib import Path

import pytest

from scripts import host
from scripts.config import load
from scripts.exit_codes import ExitCode
from scripts.host.checks import Finding, Host, look


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A host as it should be."""
    files = {f"proc/sys/{name.replace('.', '/')}": value for name, value in host.settings().items()}
    files |= {
        "sys/devices/system/clocksource/clocksource0/current_clocksource": "tsc",
        "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance",
        "dev/watchdog": "",
        "proc/mounts": "/dev/vda1 / ext4 rw 0 0",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    return tmp_path


def findings(root: Path) -> dict[str, Finding]:
    return {finding.name: finding for finding in look(Host(root), load(), host.settings())}


def test_a_host_as_it_should_be_has_nothing_wrong_in_its_files(root: Path) -> None:
    found = findings(root)

    for name in (*host.settings(), "clock source", "transparent huge pages", "core frequency", "hardware watchdog"):
        assert found[name].verdict == "yes", found[name]
    assert found["journal's filesystem"].verdict == "yes"


@pytest.mark.parametrize(
    ("file", "text", "check"),
    [
        ("proc/sys/vm/swappiness", "60", "vm.swappiness"),
        ("sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet", "clock source"),
        ("sys/kernel/mm/transparent_hugepage/enabled", "[always] madvise never", "transparent huge pages"),
        ("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave", "core frequency"),
        ("proc/mounts", "none / tmpfs rw 0 0", "journal's filesystem"),
        ("proc/mounts", "server:/x / nfs4 rw 0 0", "journal's filesystem"),
    ],
)
def test_what_is_wrong_is_seen(root: Path, file: str, text: str, check: str) -> None:
    (root / file).write_text(f"{text}\n")

    finding = findings(root)[check]

    assert finding.verdict == "no"
    assert finding.found


def test_a_setting_this_kernel_does_not_have_is_no_fault(root: Path) -> None:
    (root / "proc/sys/kernel/numa_balancing").unlink()

    assert findings(root)["kernel.numa_balancing"].verdict == "?"


def test_the_command_only_reports(capsys: pytest.CaptureFixture[str]) -> None:
    before = {name: Host(Path("/")).read(f"proc/sys/{name.replace('.', '/')}") for name in host.settings()}

    code = host.run(["--json"])

    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert code == (ExitCode.NEGATIVE if any(row["ok"] == "no" for row in rows) else ExitCode.OK)
    assert {row["check"] for row in rows} >= set(host.settings())
    assert before == {name: Host(Path("/")).read(f"proc/sys/{name.replace('.', '/')}") for name in host.settings()}


def test_apply_sets_what_differs(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    swappiness = root / "proc/sys/vm/swappiness"
    swappiness.write_text("60\n")

    host._apply(Host(root))

    assert swappiness.read_text() == "1"
    assert capsys.readouterr().err == "vm.swappiness = 1\n"
