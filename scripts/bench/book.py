"""`bullring bench book`: the matcher beside a plain array book, on the same operations in the same rounds.

The operations come from files (--stream, format OBSTRM01, whose header says what a right book makes of them), from a
flow of our own around a number of resting orders (--resting), or are one order that takes many makers (--sweep).
Without any of them: four sizes and two sweeps. The native program runs twice: as the book alone, with market events,
digest and everything else that the array does not have, and as the exchange is built, with private reports. One line
each, in nanoseconds of thread CPU time.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Sequence
from typing import Any

from scripts.exit_codes import CommandError, ExitCode
from scripts.native import binary

ROUNDS_DEFAULT, ROUNDS_MAX = 7, 101
RESTING_DEFAULT = (10_000, 100_000, 1_000_000, 5_000_000)
RESTING_MAX = 10_000_000
SWEEP_MAKERS = 10_000
KEYS_WITH_REPORTS = (
    "ns_per_op_median",
    "ns_per_op_min",
    "ratio",
    "ratio_to_array_with_events",
    "ratio_to_array_with_records",
    "reports_per_op",
)
ALONE, WHOLE = "book_bench_alone", "book_bench"

Json = dict[str, Any]


def run(arguments: Sequence[str]) -> int:
    """Print a line a stream; exit 1 if a book's sums are not the stream's."""
    options = _options(arguments)
    good = True
    for what in _streams(options):
        line = merged(_measure(ALONE, what, options), _measure(WHOLE, what, options))
        good = good and line["sums_ok"]
        print(json.dumps(line) if options.json else human(line), flush=True)
    return ExitCode.OK if good else ExitCode.NEGATIVE


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bullring bench book", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--stream", action="append", default=[], metavar="FILE", help="recorded operations")
    parser.add_argument("--resting", action="append", type=int, default=[], metavar="N", help="around N open orders")
    parser.add_argument("--sweep", action="store_true", help=f"one order takes {SWEEP_MAKERS} makers")
    parser.add_argument("--rounds", type=int, default=ROUNDS_DEFAULT, help="interleaved rounds (default %(default)s)")
    parser.add_argument("--capacity", type=int, default=0, help="order slots; 0 = twice the most that are open")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    options = parser.parse_args(arguments)
    if not 1 <= options.rounds <= ROUNDS_MAX:
        parser.error(f"--rounds must be 1..{ROUNDS_MAX}")
    if any(not 1 <= resting <= RESTING_MAX for resting in options.resting):
        parser.error(f"--resting must be 1..{RESTING_MAX}")
    if options.capacity < 0 or options.capacity & (options.capacity - 1):
        parser.error("--capacity must be a power of two, or 0")
    return options


def _streams(options: argparse.Namespace) -> list[str]:
    sweeps = [f"sweep:{SWEEP_MAKERS}:1", f"sweep:{SWEEP_MAKERS}:{SWEEP_MAKERS}"]
    chosen = [*options.stream, *(f"resting:{count}" for count in options.resting), *(sweeps if options.sweep else ())]
    return chosen or [*(f"resting:{count}" for count in RESTING_DEFAULT), *sweeps]


def _measure(program: str, what: str, options: argparse.Namespace) -> Json:
    command = [str(binary(program)), what, str(options.rounds), str(options.capacity)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not done.stdout:
        raise CommandError(done.stderr.strip() or f"{program} ended with {done.returncode}", ExitCode.UNAVAILABLE)
    return dict(json.loads(done.stdout))


def merged(alone: Json, whole: Json) -> Json:
    """One line of the two: the book alone, and under `with_reports_` what the exchange's build adds."""
    line = {"bench": "book", **alone, "sums_ok": alone["sums_ok"] and whole["sums_ok"]}
    del line["reports_per_op"], line["private_reports"]
    for key in KEYS_WITH_REPORTS:
        line[f"with_reports_{key}"] = whole[key]
    return line


def human(line: Json) -> str:
    """One line for people."""
    sums = "" if line["sums_ok"] else "  THE SUMS ARE WRONG"
    return (
        f"{line['stream']:<24} {line['ns_per_op_median']:>10.1f} ns, array {line['array_ns_per_op_median']:.1f}, ratio "
        f"{line['ratio']:.2f}; array that writes events {line['array_with_events_ns_per_op_median']:.1f}, ratio "
        f"{line['ratio_to_array_with_events']:.2f}, and reads {line['array_with_records_ns_per_op_median']:.1f}, "
        f"ratio {line['ratio_to_array_with_records']:.2f}; with private reports "
        f"{line['with_reports_ns_per_op_median']:.1f} ns{sums}"
    )
