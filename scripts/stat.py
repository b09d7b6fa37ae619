"""`bullring stat`: what a running exchange is doing, from its rings, counter files and /proc; nobody is asked."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ringbuf import CounterReader, CountersSnapshot, RingbufError
from scripts.arguments import command_parser, config_of, table
from scripts.exit_codes import CommandError, ExitCode
from scripts.node import LEDGER_FACTS_FILE, Node, NodeRings, counter_path
from scripts.placement import OBSERVER_KINDS
from scripts.storage import storage_text
from scripts.supervisor import PROCESSES_FILE

SAMPLE_S = 0.5
WATCH_S = 1.0
PERCENTILES = (50.0, 99.0, 99.9)
CLEAR_SCREEN = "\x1b[H\x1b[2J"
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
STAT_FIELD_UTIME, STAT_FIELD_STIME = 11, 12  # behind the process name in /proc/PID/stat
US = 1000


@dataclass(frozen=True)
class Sample:
    """Cursors and times at one moment."""

    at: float
    cursors: dict[str, dict[str, int]]
    consumers: dict[str, dict[str, int]]
    cpu_s: dict[int, float]
    counters: dict[str, CountersSnapshot]


def run(arguments: Sequence[str]) -> int:
    parser = command_parser("stat", "Cursors, lags, rates, latencies and processes of a running exchange.")
    parser.add_argument("--watch", action="store_true", help="again every second, until Ctrl-C")
    parser.add_argument("--counters", action="store_true", help="every counter of every process too")
    options = parser.parse_args(arguments)
    config = config_of(options)
    while True:
        # Read each time: a restart makes new rings.
        facts = observe(Node.load(config.run_dir), WATCH_S if options.watch else SAMPLE_S)
        if options.json:
            print(json.dumps(facts), flush=True)
        else:
            print((CLEAR_SCREEN if options.watch else "") + render(facts, counters=options.counters), flush=True)
        if not options.watch:
            return ExitCode.OK if facts["running"] else ExitCode.UNAVAILABLE


def observe(node: Node, interval_s: float) -> dict[str, Any]:
    """Look twice, `interval_s` apart, and return what was seen. Raises CommandError if nothing runs."""
    processes = read_processes(node)
    pids = [process["pid"] for process in processes]
    try:
        rings = NodeRings.attach(node, writable=False)
    except RingbufError as error:
        raise CommandError(
            f"the exchange of {node.config.data_dir} does not run: {error}", ExitCode.UNAVAILABLE
        ) from error
    try:
        first = look(rings, node, pids)
        time.sleep(interval_s)
        second = look(rings, node, pids)
        epoch, storage = rings.log.epoch, rings.log.storage
    finally:
        rings.close()
    # Trading does not need the observers: one that is being started again is no reason to call the exchange incomplete.
    observers = {plan.name for plan in node.plans if plan.kind in OBSERVER_KINDS}
    needed = [process for process in processes if process["name"] not in observers]
    alive = [process for process in needed if process["pid"] in second.cpu_s]
    return {
        "name": node.config.node.name,
        "data": str(node.config.data_dir),
        "running": bool(alive) and len(alive) == len(needed),
        "mode": node.config.node.mode,
        "epoch": epoch,
        "storage": {"level": storage.level.name.lower(), "slow": storage.slow, "text": storage_text(storage)},
        "binary_gateway": node.binary_address,
        "processes": [_process(process, first, second) for process in processes],
        "rings": [_ring(name, first, second) for name in second.cursors],
        "latency": _latencies(first, second),
        "ledger": ledger_facts(node),
        "counters": {name: dict(snapshot.gauges) for name, snapshot in second.counters.items()},
    }


def read_processes(node: Node) -> list[dict[str, Any]]:
    try:
        rows: list[dict[str, Any]] = json.loads((node.config.run_dir / PROCESSES_FILE).read_text())
    except FileNotFoundError:
        rows = []
    if not rows:
        raise CommandError(f"the exchange of {node.config.data_dir} does not run", ExitCode.UNAVAILABLE)
    return rows


def ledger_facts(node: Node) -> dict[str, Any] | None:
    """Return what the ledger's process last said of itself, None if it has said nothing."""
    try:
        facts: dict[str, Any] = json.loads((node.config.run_dir / LEDGER_FACTS_FILE).read_text())
    except (OSError, ValueError):
        return None
    return facts


def look(rings: NodeRings, node: Node, pids: Sequence[int]) -> Sample:
    cursors, consumers = {}, {}
    for name, ring in rings.all().items():
        consumers[name] = {consumer.name: consumer.cursor for consumer in ring.cursors.values()}
        cursors[name] = {
            "base": ring.base,
            "capacity": ring.capacity,
            "published": ring.published,
            "visible": ring.visible,
            "wanted": ring.wanted if name == "log" else ring.published,
        }
    counters = {}
    for plan in node.plans:
        with suppress(FileNotFoundError), CounterReader(counter_path(node.config, plan.name)) as reader:
            counters[plan.name] = reader.snapshot()
    cpu = {pid: seconds for pid in pids if (seconds := cpu_seconds(pid)) is not None}
    return Sample(time.monotonic(), cursors, consumers, cpu, counters)


def cpu_seconds(pid: int) -> float | None:
    """Return the processor time a process has used, None if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    if fields[0] == "Z":
        return None
    return (int(fields[STAT_FIELD_UTIME]) + int(fields[STAT_FIELD_STIME])) / TICKS_PER_S


def _process(process: dict[str, Any], first: Sample, second: Sample) -> dict[str, Any]:
    pid = process["pid"]
    used = second.cpu_s.get(pid, 0.0) - first.cpu_s.get(pid, 0.0)
    return {
        "process": process["name"],
        "pid": pid,
        "state": "running" if pid in second.cpu_s else "gone",
        "cpu_percent": round(100 * used / (second.at - first.at), 1),
        "wait": process["wait"],
        "core": "any" if process["core"] < 0 else process["core"],
        "restarts": process["restarts"],
    }


def _ring(name: str, first: Sample, second: Sample) -> dict[str, Any]:
    cursors = second.cursors[name]
    published = cursors["published"]
    rate = (published - first.cursors[name]["published"]) / (second.at - first.at)
    return {
        "ring": name,
        "slots": cursors["capacity"],
        "published": published,
        "visible": cursors["visible"],
        "per_s": round(rate),
        "lags": {consumer: published - cursor for consumer, cursor in second.consumers[name].items()},
    }


def _latencies(first: Sample, second: Sample) -> list[dict[str, Any]]:
    rows = []
    for process, snapshot in second.counters.items():
        for name, histogram in snapshot.histograms.items():
            earlier = first.counters.get(process)
            recent = histogram.since(earlier.histograms[name]) if earlier and name in earlier.histograms else histogram
            # A quiet moment says nothing: then the whole life of the process is shown.
            shown, period = (recent, "now") if recent.count else (histogram, "since start")
            row: dict[str, Any] = {"process": process, "what": name, "period": period, "count": shown.count}
            for percent in PERCENTILES:
                row[f"p{percent:g}_us"] = round(shown.percentile(percent) / US, 1)
            rows.append(row)
    return rows


def render(facts: dict[str, Any], *, counters: bool) -> str:
    head = (
        f"{facts['name']}: {'running' if facts['running'] else 'NOT COMPLETE'}, mode {facts['mode']}, "
        f"epoch {facts['epoch']}, binary gateway {facts['binary_gateway']}, data {facts['data']}, "
        f"disk: {facts['storage']['text']}"
    )
    parts = [head, table(facts["processes"]), table(facts["rings"])]
    if facts["latency"]:
        parts.append(table(facts["latency"]))
    if facts["ledger"] is not None:
        parts.append(ledger_line(facts["ledger"]))
    if counters:
        rows = [
            {"process": process, "counter": name, "value": value}
            for process, numbers in facts["counters"].items()
            for name, value in numbers.items()
        ]
        parts.append(table(rows))
    return "\n\n".join(parts)


def ledger_line(facts: dict[str, Any]) -> str:
    """Return how the books are, in one line; a difference or trouble stands in lines of their own."""
    agreed = facts["marks_compared"] - facts["marks_differing"]
    lines = [
        f"ledger: {facts['state']}, {facts['stored']} records stored, {facts['lag']} behind; {agreed} of "
        f"{facts['marks_compared']} hash marks agree"
    ]
    if "reconciled" in facts:
        last = facts["reconciled"]
        lines[0] += f"; store compared at record {last['position']}: {last['differences']} differences"
    lines += [f"ledger DIFFERS: {sentence}" for sentence in facts["differences"]]
    if facts["trouble"]:
        lines.append(f"ledger: {facts['trouble']}")
    return "\n".join(lines)
