"""Which core a bench gives to the journaler: the one that its disk interrupts."""

import os
from pathlib import Path

import pytest

from scripts.bench._cores import ANY, Cores, choose, interrupt_core

INTERRUPTS = """           CPU0       CPU1
 35:          0          1  PCI-MSIX-0000:00:02.0   0-edge      virtio1-config
 36:          0   25688405  PCI-MSIX-0000:00:02.0   1-edge      virtio1-req.0
 38:          7          0  PCI-MSIX-0000:00:03.0   1-edge      virtio12-req.0
LOC:   28791918   30628118   Local timer interrupts
"""


def machine(root: Path, *, queues: int = 1, affinity: str = "1", partition: bool = False) -> None:
    """Make as much of sysfs and /proc as says where the disk under `root` interrupts."""
    number = root.stat().st_dev
    disk = root / "sys/devices/pci0000:00/virtio1/block/vda"
    for queue in range(queues):
        (disk / "mq" / str(queue)).mkdir(parents=True)
    device = disk
    if partition:
        device = disk / "vda1"
        device.mkdir()
        (device / "partition").write_text("1\n")
    (root / "sys/dev/block").mkdir(parents=True)
    (root / "sys/dev/block" / f"{os.major(number)}:{os.minor(number)}").symlink_to(device)
    for interrupt in ("36", "38"):
        (root / "proc/irq" / interrupt).mkdir(parents=True)
    (root / "proc/irq/36/effective_affinity_list").write_text(f"{affinity}\n")
    (root / "proc/irq/38/effective_affinity_list").write_text("0\n")
    (root / "proc/interrupts").write_text(INTERRUPTS)


@pytest.mark.parametrize("partition", [False, True])
def test_the_journaler_is_where_its_disk_interrupts(tmp_path: Path, partition: bool) -> None:
    machine(tmp_path, partition=partition)

    assert interrupt_core(tmp_path, tmp_path) == 1
    assert choose(tmp_path, [0, 1], tmp_path) == Cores(order_path=0, journaler=1)
    assert choose(tmp_path, [0, 2, 3], tmp_path) == Cores(order_path=2, journaler=0), "not a core of ours"
    assert choose(tmp_path, [1], tmp_path) == Cores(ANY, ANY)


@pytest.mark.parametrize("made", [{"queues": 2}, {"affinity": "0-1"}])
def test_where_it_may_be_any_core_the_first_is_taken(tmp_path: Path, made: dict[str, int | str]) -> None:
    machine(tmp_path, **made)  # type: ignore[arg-type]

    assert interrupt_core(tmp_path, tmp_path) is None
    assert choose(tmp_path, [0, 1], tmp_path) == Cores(order_path=1, journaler=0)


def test_a_disk_nobody_knows_is_no_error(tmp_path: Path) -> None:
    assert interrupt_core(tmp_path, tmp_path / "nothing") is None
