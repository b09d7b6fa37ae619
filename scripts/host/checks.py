"""What is looked at on a host, each as one finding. Files are read below a root, so tests bring their own."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from scripts.clock import error_us
from scripts.config import STAGES_CORES_MIN, Config
from scripts.sandbox import landlock_version

MIB = 1 << 20
CLOCK_ERROR_US_MAX = 10_000  # RELIABILITY section 8: beyond it a node should not lead
UNSUITABLE = {"tmpfs", "nfs", "nfs4", "overlay", "cifs", "fuse"}
SLOT_BYTES, MARKET_SLOT_BYTES = 128, 64
SHM_SPARE = 2  # twice what the rings take: a restart makes new ones before the old ones are gone


@dataclass(frozen=True)
class Finding:
    """`verdict`: "yes" it is as wanted, "no" it is not, "?" it cannot be seen here."""

    name: str
    verdict: str
    found: str
    wanted: str


@dataclass(frozen=True)
class Host:
    """The files of a host."""

    root: Path

    def read(self, path: str) -> str | None:
        """Return a file's text without its newline, None if it cannot be read."""
        try:
            return (self.root / path).read_text().strip()
        except OSError:
            return None

    def setting_path(self, name: str) -> Path:
        return self.root / "proc/sys" / name.replace(".", "/")


def look(host: Host, config: Config, settings: Mapping[str, str]) -> list[Finding]:
    """Return every finding; changes nothing."""
    priorities = (config.placement.priority_journaler, config.placement.priority_order_path)
    found = [_setting(host, name, wanted) for name, wanted in settings.items()]
    found += [_clock_source(host), _clock(), _transparent_huge_pages(host), *_governors(host)]
    found += [_cores(), _watchdog(host), _landlock()]
    found += [_limit("locked memory", resource.RLIMIT_MEMLOCK, _ring_bytes(config)), _files_limit(config)]
    found += [_limit("real-time priority", resource.RLIMIT_RTPRIO, max(priorities))]
    found += [_shared_memory(config), _filesystem(host, config), _own_filesystem(config)]
    return found


def _finding(name: str, *, good: bool, found: str, wanted: str) -> Finding:
    return Finding(name, "yes" if good else "no", found, wanted)


def _setting(host: Host, name: str, wanted: str) -> Finding:
    text = host.read(f"proc/sys/{name.replace('.', '/')}")
    if text is None:
        return Finding(name, "?", "not on this kernel", wanted)
    return _finding(name, good=text == wanted, found=text, wanted=wanted)


def _clock_source(host: Host) -> Finding:
    text = host.read("sys/devices/system/clocksource/clocksource0/current_clocksource")
    if text is None:
        return Finding("clock source", "?", "unknown", "tsc")
    return _finding("clock source", good=text in ("tsc", "kvm-clock", "arch_sys_counter"), found=text, wanted="tsc")


def _clock() -> Finding:
    error, wanted = error_us(), f"synchronized, off by at most {CLOCK_ERROR_US_MAX} us"
    if error is None:
        return Finding("wall clock", "no", "nothing keeps it right", wanted)
    return _finding("wall clock", good=error <= CLOCK_ERROR_US_MAX, found=f"off by at most {error} us", wanted=wanted)


def _transparent_huge_pages(host: Host) -> Finding:
    text = host.read("sys/kernel/mm/transparent_hugepage/enabled")
    wanted = "madvise or never"
    if text is None:
        return Finding("transparent huge pages", "?", "unknown", wanted)
    return _finding("transparent huge pages", good="[always]" not in text, found=text, wanted=wanted)


def _governors(host: Host) -> Iterator[Finding]:
    paths = sorted(host.root.glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor"))
    governors = {path.read_text().strip() for path in paths}
    if governors:
        good = governors == {"performance"}
        yield _finding("core frequency", good=good, found=", ".join(sorted(governors)), wanted="performance")


def _cores() -> Finding:
    count = len(os.sched_getaffinity(0))
    good = count >= STAGES_CORES_MIN
    return _finding("cores", good=good, found=str(count), wanted=f"{STAGES_CORES_MIN} for one process a stage")


def _watchdog(host: Host) -> Finding:
    good = (host.root / "dev/watchdog").exists()
    return _finding("hardware watchdog", good=good, found="there" if good else "none", wanted="/dev/watchdog")


def _landlock() -> Finding:
    version = landlock_version()
    found = f"version {version}" if version else "none"
    return _finding("Landlock", good=version > 0, found=found, wanted="any version: gateways lock themselves in")


def _limit(name: str, which: int, needed: int) -> Finding:
    soft, _ = resource.getrlimit(which)
    unlimited = soft == resource.RLIM_INFINITY
    found = "unlimited" if unlimited else str(soft)
    return _finding(name, good=unlimited or soft >= needed, found=found, wanted=f"{needed} or more")


def _files_limit(config: Config) -> Finding:
    return _limit("open files", resource.RLIMIT_NOFILE, config.gateway.binary.connections_max + 256)


def _ring_bytes(config: Config) -> int:
    rings, partitions = config.rings, config.placement.partitions
    slots = rings.log_slots + rings.reply_slots + (partitions + 1) * rings.report_slots + 2 * rings.ingress_slots
    return slots * SLOT_BYTES + partitions * rings.market_slots * MARKET_SLOT_BYTES


def _shared_memory(config: Config) -> Finding:
    needed = SHM_SPARE * _ring_bytes(config)
    try:
        room = os.statvfs("/dev/shm")
    except OSError:
        return Finding("shared memory", "no", "no /dev/shm", f"{needed // MIB} MiB free")
    free = room.f_bavail * room.f_frsize
    found, wanted = f"{free // MIB} MiB free", f"{needed // MIB} MiB free"
    return _finding("shared memory", good=free >= needed, found=found, wanted=wanted)


def _existing(path: Path) -> Path:
    return next(each for each in (path, *path.parents) if each.exists())


def _filesystem(host: Host, config: Config) -> Finding:
    """Of the journal: /proc/mounts' longest mount point above it."""
    path = _existing(config.journal_dir).resolve()
    mounts = [line.split()[1:3] for line in (host.read("proc/mounts") or "").splitlines() if len(line.split()) > 2]
    above = [(point, kind) for point, kind in mounts if path == Path(point) or Path(point) in path.parents]
    wanted = "a local filesystem on a disk with power-loss protection (ext4, xfs)"
    if not above:
        return Finding("journal's filesystem", "?", "unknown", wanted)
    kind = max(above, key=lambda mount: len(mount[0]))[1]
    return _finding("journal's filesystem", good=kind.split(".")[0] not in UNSUITABLE, found=kind, wanted=wanted)


def _own_filesystem(config: Config) -> Finding:
    device = _existing(config.journal_dir).stat().st_dev
    own = device not in (Path("/").stat().st_dev, _existing(config.data_dir.parent).stat().st_dev)
    return _finding("journal's own disk", good=own, found="its own" if own else "shared", wanted="its own (J9)")
