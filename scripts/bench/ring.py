"""`bullring bench ring`: our rings between processes beside the LMAX Disruptor between threads, in the same run.

The work is a toy: 64 bytes written by the producer one message a publication, read by every consumer, sums compared.
Ours is the native program ring_bench (ring.h and the runner, as in the exchange), the reference Debian's
libdisruptor-java in a harness of ours (DisruptorBench.java). Case by case they take turns, round after round, so that
both meet the same machine; the reference's process lives through a case and is warmed up before. With a core for each,
processes of ours and threads of the reference get one each. Quoted are medians of the rounds, and their ratio.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.native import binary

Json = dict[str, Any]

DEBIAN_PACKAGES = "libdisruptor-java default-jdk-headless"
JAR = Path("/usr/share/java/disruptor.jar")
HARNESS = Path(__file__).with_name("native") / "DisruptorBench.java"
JVM_OPTIONS = ("-Xms256m", "-Xmx256m", "-XX:+UseSerialGC")
WAIT_STRATEGIES = {"spin": "BusySpinWaitStrategy", "yield": "YieldingWaitStrategy", "park": "BlockingWaitStrategy"}
SLOT_COUNT = 16384
WARM_UPS = 5
RUN_DEADLINE_S = 120

PARTIES = {"1to1": 2, "1to3": 4, "pipeline": 4, "diamond": 4, "pingpong": 2, "bare": 2}
TARGETS = {"1to1": 1.5, "1to3": 1.0, "pipeline": 1.0, "diamond": 1.0}  # throughput: ours / Disruptor
PINGPONG_OVER_BARE_MAX = 1.6
THROUGHPUT_MESSAGES = {"spin": 3_000_000, "yield": 3_000_000, "park": 1_000_000}
PINGPONG_MESSAGES = {"spin": 100_000, "yield": 100_000, "park": 10_000}
QUICK_SHARE = 5
RTT_FIELDS = ("rtt_ns_min", "rtt_ns_p50", "rtt_ns_p90", "rtt_ns_p99", "rtt_ns_p999")


class ReferenceMissing(Exception):
    """The reference cannot be measured here; the text says why."""


class Ours:
    """The native program: a fresh set of processes for each run."""

    def __init__(self, program: Path) -> None:
        self.program = program

    def run(self, topology: str, wait: str, messages: int) -> Json:
        command = [str(self.program), topology, wait, str(messages), str(SLOT_COUNT)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_DEADLINE_S)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command[1:])} ended with {done.returncode}: {done.stderr.strip()}")
        return dict(json.loads(done.stdout))


class Reference:
    """The Disruptor: compiled once, one process a case."""

    def __init__(self, jar: Path, classes: Path) -> None:
        self.jar = jar
        self.classes = classes

    @classmethod
    def prepare(cls, jar: Path, classes: Path) -> Reference:
        """Compile the harness. Raises ReferenceMissing if Java, the jar or the source is missing."""
        missing = [tool for tool in ("java", "javac") if shutil.which(tool) is None]
        if missing or not jar.is_file():
            absent = ", ".join([*missing, *([] if jar.is_file() else [str(jar)])])
            raise ReferenceMissing(f"{absent} not found; Debian: apt-get install {DEBIAN_PACKAGES}")
        if not HARNESS.is_file():
            raise ReferenceMissing(f"{HARNESS.name} is not part of this installation: use a checkout")
        command = ["javac", "-cp", str(jar), "-d", str(classes), str(HARNESS)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_DEADLINE_S)
        if done.returncode != 0:
            raise ReferenceMissing(f"javac failed: {done.stderr.strip()[:500]}")
        return cls(jar, classes)

    @property
    def version(self) -> str:
        return self.jar.resolve().stem.removeprefix("disruptor-")

    @contextmanager
    def case(self, topology: str, wait: str) -> Iterator[Machine]:
        path = f"{self.jar}{os.pathsep}{self.classes}"
        command = ["java", *JVM_OPTIONS, "-cp", path, "DisruptorBench", topology, wait, str(SLOT_COUNT)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            yield Machine(process, PARTIES[topology])
        finally:
            process.kill()
            process.communicate()


class Machine:
    """A running Java process; one run at a time."""

    def __init__(self, process: subprocess.Popen[bytes], parties: int) -> None:
        self._process = process
        self._parties = parties

    def run(self, messages: int) -> Json:
        """Run with so many messages, its threads on the cores that the processes of ours get, too."""
        self._say(str(messages))
        if self._answer() != "ready":
            raise ReferenceMissing("the Disruptor's harness did not get ready")
        self._give_cores()
        self._say("go")
        return dict(json.loads(self._answer()))

    def _say(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{text}\n".encode())
        self._process.stdin.flush()

    def _answer(self) -> str:
        source = self._process.stdout
        assert source is not None
        if not select.select([source], [], [], RUN_DEADLINE_S)[0]:
            raise ReferenceMissing(f"the Disruptor did not finish within {RUN_DEADLINE_S} s")
        line = source.readline().decode().strip()
        if not line:
            raise ReferenceMissing("the Disruptor's process ended")
        return line

    def _give_cores(self) -> None:
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < self._parties:
            return
        for task in Path(f"/proc/{self._process.pid}/task").iterdir():
            try:
                name = (task / "comm").read_text().strip()
            except OSError:
                continue  # a compiler thread of the JVM that has ended meanwhile; ours wait for us
            if name.startswith("party-"):
                os.sched_setaffinity(int(task.name), {cores[int(name.removeprefix("party-"))]})


@dataclass(frozen=True)
class Case:
    topology: str
    wait: str
    messages: int

    @property
    def is_pingpong(self) -> bool:
        return self.topology in ("pingpong", "bare")


def cases(*, quick: bool, waits: list[str], topologies: list[str]) -> list[Case]:
    found = []
    for topology in topologies:
        for wait in waits:
            amounts = PINGPONG_MESSAGES if topology == "pingpong" else THROUGHPUT_MESSAGES
            found.append(Case(topology, wait, amounts[wait] // (QUICK_SHARE if quick else 1)))
    return found


def measure(case: Case, ours: Ours, reference: Reference | None, rounds: int) -> Json:
    """Run one case in rounds: ours, the reference, and for ping-pong the bare one."""
    series: dict[str, list[Json]] = {"ours": [], "reference": [], "bare": []}
    note: str | None = None
    with ExitStack() as stack:
        java = stack.enter_context(reference.case(case.topology, case.wait)) if reference is not None else None
        try:
            for _ in range(WARM_UPS if java is not None else 0):
                assert java is not None
                java.run(case.messages)
        except ReferenceMissing as error:
            java, note = None, str(error)
        for number in range(rounds):
            # Who goes first changes, in case the one before leaves the machine warm or throttled.
            for side in ("ours", "reference") if number % 2 == 0 else ("reference", "ours"):
                if side == "ours":
                    series[side].append(ours.run(case.topology, case.wait, case.messages))
                elif java is not None:
                    try:
                        series[side].append(java.run(case.messages))
                    except ReferenceMissing as error:
                        java, note = None, str(error)
            if case.topology == "pingpong" and case.wait != "park":
                series["bare"].append(ours.run("bare", case.wait, case.messages))
    line = _report_pingpong(case, series) if case.is_pingpong else _report_throughput(case, series)
    if note is not None:
        line["reference_note"] = note
    return line


def _median(lines: list[Json], field: str) -> float | None:
    return statistics.median(line[field] for line in lines) if lines else None


def _head(case: Case, series: dict[str, list[Json]]) -> Json:
    return {
        "bench": "ring",
        "case": case.topology,
        "wait": case.wait,
        "what": "64-byte slots between processes, one message a publication",
        "messages": case.messages,
        "rounds": len(series["ours"]),
        "cores": len(os.sched_getaffinity(0)),
    }


def _report_throughput(case: Case, series: dict[str, list[Json]]) -> Json:
    ours = _median(series["ours"], "messages_per_s")
    theirs = _median(series["reference"], "messages_per_s")
    rates = sorted(line["messages_per_s"] for line in series["ours"])
    assert ours is not None
    line = _head(case, series) | {
        "messages_per_s": ours,
        "messages_per_s_min": rates[0],
        "messages_per_s_max": rates[-1],
        "sleeps": _median(series["ours"], "sleeps"),
        "reference": f"LMAX Disruptor, {WAIT_STRATEGIES[case.wait]}, threads of one process",
        "reference_messages_per_s": theirs,
        "ratio": round(ours / theirs, 3) if theirs else None,
        "target": TARGETS[case.topology],
    }
    line["reached"] = line["ratio"] >= line["target"] if theirs else None
    return line


def _report_pingpong(case: Case, series: dict[str, list[Json]]) -> Json:
    line = _head(case, series)
    for field in RTT_FIELDS:
        line[field] = _median(series["ours"], field)
    line["reference"] = f"LMAX Disruptor, {WAIT_STRATEGIES[case.wait]}, threads of one process"
    for field in RTT_FIELDS:
        line[f"reference_{field}"] = _median(series["reference"], field)
    for field in RTT_FIELDS:
        line[f"bare_{field}"] = _median(series["bare"], field)
    theirs, bare = line["reference_rtt_ns_p50"], line["bare_rtt_ns_p50"]
    line["ratio"] = round(theirs / line["rtt_ns_p50"], 3) if theirs else None
    line["ratio_to_bare"] = round(line["rtt_ns_p50"] / bare, 3) if bare else None
    return line


def best_pingpong(lines: list[Json]) -> Json | None:
    """Our best wait strategy against the best of the reference and against the bare ping-pong of the same wait."""
    games = [line for line in lines if line["case"] == "pingpong" and "skipped" not in line]
    if not games:
        return None
    best = min(games, key=lambda line: float(line["rtt_ns_p50"]))
    theirs = min((line["reference_rtt_ns_p50"] for line in games if line["reference_rtt_ns_p50"]), default=None)
    over_bare = best["ratio_to_bare"]
    verdicts = [
        None if theirs is None else best["rtt_ns_p50"] < theirs,
        None if over_bare is None else over_bare <= PINGPONG_OVER_BARE_MAX,
    ]
    return {
        "bench": "ring",
        "case": "pingpong best",
        "wait": best["wait"],
        "rtt_ns_p50": best["rtt_ns_p50"],
        "reference_rtt_ns_p50": theirs,
        "ratio": round(theirs / best["rtt_ns_p50"], 3) if theirs else None,
        "ratio_to_bare": over_bare,
        "target": f"ratio > 1 and ratio_to_bare <= {PINGPONG_OVER_BARE_MAX}",
        "reached": None if None in verdicts else all(verdicts),
    }


def skipped(case: Case, why: str) -> Json:
    return {"bench": "ring", "case": case.topology, "wait": case.wait, "skipped": why}


def human(line: Json) -> str:
    """One line for people."""
    title = f"{line['case']:<14} {line.get('wait', ''):<6}"
    if "skipped" in line:
        return f"{title} skipped: {line['skipped']}"
    if "messages_per_s" in line:
        theirs = line["reference_messages_per_s"]
        against = f", Disruptor {theirs / 1e6:.1f} M/s, ratio {line['ratio']}" if theirs else ""
        return f"{title} {line['messages_per_s'] / 1e6:.1f} M/s{against} (target {line['target']})"
    parts = [f"{title} p50 {line['rtt_ns_p50']:.0f} ns"]
    if "rtt_ns_p99" in line:
        parts.append(f"p99 {line['rtt_ns_p99']:.0f}, p99.9 {line['rtt_ns_p999']:.0f}")
    if line["reference_rtt_ns_p50"]:
        parts.append(f"Disruptor p50 {line['reference_rtt_ns_p50']:.0f}")
    if line["ratio_to_bare"]:
        parts.append(f"{line['ratio_to_bare']} x bare")
    return ", ".join(parts)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bullring bench ring", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each side a case (default 5)")
    parser.add_argument("--quick", action="store_true", help="a fifth of the messages")
    parser.add_argument("--wait", action="append", choices=sorted(WAIT_STRATEGIES), help="only these; may be repeated")
    topologies = [name for name in PARTIES if name != "bare"]
    parser.add_argument("--topology", action="append", choices=topologies, help="only these; may be repeated")
    parser.add_argument("--jar", type=Path, default=JAR, help=f"the Disruptor (default {JAR})")
    parser.add_argument("--program", type=Path, help="another build of ring_bench")
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    options.wait = options.wait or list(WAIT_STRATEGIES)
    options.topology = options.topology or topologies
    return options


def run(arguments: list[str]) -> int:
    """Print one line a case; the exit code says only whether everything ran, not whether targets were reached."""
    options = parse(arguments)
    lines: list[Json] = []

    def emit(line: Json) -> None:
        lines.append(line)
        print(json.dumps(line) if options.json else human(line), flush=True)

    ours = Ours(options.program or binary("ring_bench"))
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="bullring-bench-") as folder:
        reference: Reference | None = None
        try:
            reference = Reference.prepare(options.jar, Path(folder))
        except ReferenceMissing as error:
            emit({"bench": "ring", "case": "reference", "wait": "", "skipped": str(error)})
        for case in cases(quick=options.quick, waits=options.wait, topologies=options.topology):
            if case.wait == "spin" and PARTIES[case.topology] > cores:
                emit(
                    skipped(
                        case, f"{PARTIES[case.topology]} spinning parties on {cores} cores only measure the scheduler"
                    )
                )
                continue
            emit(measure(case, ours, reference, options.rounds))
    summary = best_pingpong(lines)
    if summary is not None:
        emit(summary)
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
