"""`bullring bench feed`: the binary market feed beside bare references of the same run. One JSON object a line.

Rounds are interleaved and medians printed. Publishing and the client are counted in the time of their own thread
(kernel work included), so that other load on the machine takes nothing from them; latency, paced and replay are wall
time and do see it: run them where you will trade. For latency the quietest round is printed beside the medians: each
party's best one, so that both are judged by what the code does and not by who else wanted the core.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
from collections.abc import Sequence
from typing import Any

from scripts.exit_codes import CommandError, ExitCode
from scripts.native import binary

US = 1000
GOAL_LATENCY_US = 2.0  # above one send()
GOAL_PUBLISH, GOAL_CLIENT = 1_000_000, 5_000_000
GOAL_REPLAY = 0.5  # of a bare copy
MODES = ("latency", "publish", "paced", "client", "replay")

Result = dict[str, Any]


def run(arguments: Sequence[str]) -> int:
    """Run all modes; exit 1 if the kernel did not take a packet of the paced feed. A feed that is lapped fails."""
    options = _options(arguments)
    results: dict[str, list[Result]] = {}
    for _ in range(options.rounds):
        for mode in options.modes.split(","):
            for name, words in _calls(mode, options):
                results.setdefault(name, []).append(_native(words, options.priority))
    lost = 0
    for name, rounds in results.items():
        lost += sum(int(each.get("lost", 0)) for each in rounds)
        if name != "references":
            print(json.dumps(_summary(name, rounds, results)), flush=True)
    return ExitCode.OK if lost == 0 else ExitCode.NEGATIVE


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bullring bench feed", description=__doc__)
    parser.add_argument("--modes", default=",".join(MODES), help="comma-separated (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds; medians are printed")
    parser.add_argument("--events", type=int, default=20_000, help="of the latency mode (default %(default)s)")
    parser.add_argument("--operations", type=int, default=1_000_000, help="of a recording (default %(default)s)")
    parser.add_argument(
        "--rate", type=int, default=GOAL_PUBLISH, help="events/s of the paced mode (default %(default)s)"
    )
    parser.add_argument(
        "--stream", action="append", default=[], metavar="FILE", help="OBSTRM01 recordings beside the random one"
    )
    parser.add_argument("--priority", type=int, default=0, metavar="N", help="niceness, negative where allowed")
    parser.add_argument("--json", action="store_true", help="accepted for uniformity: output is always JSON lines")
    options = parser.parse_args(arguments)
    unknown = set(options.modes.split(",")) - set(MODES)
    if unknown:
        raise CommandError(
            f"--modes: no mode {', '.join(sorted(unknown))}; there are {', '.join(MODES)}", ExitCode.USAGE
        )
    return options


def _calls(mode: str, options: argparse.Namespace) -> list[tuple[str, list[str]]]:
    """Return the runs of the native bench of one mode, by name."""
    operations = str(options.operations)
    if mode == "latency":
        return [("latency", ["latency", str(options.events)]), ("references", ["references", str(options.events)])]
    if mode == "paced":
        return [("paced", ["paced", "random", operations, str(options.rate)])]
    streams = ["random", *options.stream] if mode == "client" else ["random"]
    names = [mode if stream == "random" else f"{mode} {stream.rpartition('/')[2]}" for stream in streams]
    return [(name, [mode, stream, operations]) for name, stream in zip(names, streams, strict=True)]


def _native(words: list[str], priority: int) -> Result:
    def prioritize() -> None:
        with contextlib.suppress(PermissionError):
            os.nice(priority)

    done = subprocess.run(
        [binary("feed_bench"), *words], capture_output=True, text=True, check=False, preexec_fn=prioritize
    )
    if done.returncode != 0:
        raise CommandError(f"feed_bench {' '.join(words)} failed: {done.stderr.strip()}", ExitCode.NEGATIVE)
    result: Result = json.loads(done.stdout)
    return result


def _median(rounds: list[Result], name: str) -> float:
    return statistics.median(float(each[name]) for each in rounds)


def _summary(name: str, rounds: list[Result], results: dict[str, list[Result]]) -> Result:
    head: Result = {"bench": "feed", "what": name, "rounds": len(rounds)}
    mode = name.split(" ", 1)[0]
    if mode == "latency":
        return head | _latency(rounds, results["references"])
    values = {key: round(_median(rounds, key), 2) for key in rounds[0]}
    if mode == "publish":
        return head | values | {"goal": GOAL_PUBLISH, "ratio_to_goal": round(values["events_per_s"] / GOAL_PUBLISH, 2)}
    if mode == "client":
        return head | values | {"goal": GOAL_CLIENT, "ratio_to_goal": round(values["events_per_s"] / GOAL_CLIENT, 2)}
    if mode == "replay":
        ratio = statistics.median(each["replay_MB_per_s"] / each["copy_MB_per_s"] for each in rounds)
        best = statistics.median(each["replay_MB_per_s"] / each["sendfile_MB_per_s"] for each in rounds)
        return (
            head | values | {"ratio_to_copy": round(ratio, 2), "ratio_to_sendfile": round(best, 2), "goal": GOAL_REPLAY}
        )
    return head | values


def _latency(rounds: list[Result], references: list[Result]) -> Result:
    def us(samples: list[Result], name: str) -> float:
        return round(_median(samples, name) / US, 2)

    values: Result = {"events": rounds[0]["events"]}
    for name in ("match_to_send", "send", "match_to_kernel"):
        for percentile in ("p50", "p99", "p999"):
            values[f"{name}_us_{percentile}"] = us(rounds, f"{name}_{percentile}_ns")
    for name in ("ring_hop", "bare_send"):
        for percentile in ("p50", "p99"):
            values[f"{name}_us_{percentile}"] = us(references, f"{name}_{percentile}_ns")
    bare = values["ring_hop_us_p50"] + values["bare_send_us_p50"]
    values["ratio_p50"] = round(values["match_to_kernel_us_p50"] / bare, 2)
    quiet = min(rounds, key=lambda each: each["match_to_kernel_p50_ns"] if each["events"] else float("inf"))
    for name in ("match_to_send", "send", "match_to_kernel"):
        for percentile in ("p50", "p99"):
            values[f"quietest_{name}_us_{percentile}"] = round(quiet[f"{name}_{percentile}_ns"] / US, 2)
    for name in ("ring_hop", "bare_send"):
        best = min(references, key=lambda each: each[f"{name}_p50_ns"])
        for percentile in ("p50", "p99"):
            values[f"quietest_{name}_us_{percentile}"] = round(best[f"{name}_{percentile}_ns"] / US, 2)
    for which in ("", "quietest_"):
        above = values[f"{which}match_to_kernel_us_p50"] - values[f"{which}bare_send_us_p50"]
        values[f"{which}us_p50_above_one_send"] = round(above, 2)
    values["goal_us_p50_above_one_send"] = GOAL_LATENCY_US
    return values
