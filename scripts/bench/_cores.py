"""Who runs where in a bench on few cores.

The journaler and the load generator share one core, the order path has the next one. The journaler's is the one that
takes the interrupts of its disk, where there is one: each sync then ends with a wake-up on its own core (D1, window 1:
p50 183 us on the other core, 135 on this one).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ANY = -1


@dataclass(frozen=True, slots=True)
class Cores:
    """ANY: not pinned."""

    order_path: int
    journaler: int  # and load generator


def choose(folder: Path, available: Sequence[int], root: Path = Path("/")) -> Cores:
    """Return the cores for a journal in `folder`."""
    if len(available) < 2:
        return Cores(ANY, ANY)
    interrupted = interrupt_core(folder, root)
    journaler = available[0] if interrupted is None or interrupted not in available else interrupted
    return Cores(next(core for core in available if core != journaler), journaler)


def interrupt_core(folder: Path, root: Path = Path("/")) -> int | None:
    """Return the one core that is interrupted by the disk under `folder`; None if there are several, or it is unknown.

    Source: the block device in sysfs, the interrupts named after it in /proc.
    """
    number = folder.stat().st_dev
    try:
        disk = (root / "sys/dev/block" / f"{os.major(number)}:{os.minor(number)}").resolve(strict=True)
        if (disk / "partition").exists():
            disk = disk.parent
        if len(list((disk / "mq").iterdir())) != 1:
            return None  # a queue a core
        names = {part for part in disk.relative_to(root.resolve()).parts if part[-1].isdigit()}
        found = {
            (root / "proc/irq" / words[0].rstrip(":") / "effective_affinity_list").read_text().strip()
            for words in map(str.split, (root / "proc/interrupts").read_text().splitlines())
            if len(words) > 2 and _of_a_queue(words[-1], names)
        }
    except OSError:
        return None
    cores = {int(text) for text in found if text.isdigit()}
    return cores.pop() if len(cores) == len(found) == 1 else None


def _of_a_queue(interrupt: str, names: set[str]) -> bool:
    """virtio1-req.0, nvme0q1: a device and its queue."""
    return any(interrupt.startswith((f"{name}-req", f"{name}q")) for name in names)
