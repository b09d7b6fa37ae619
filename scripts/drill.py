"""`bullring drill NAME`: run a drill of scripts/drills/ and print one JSON line with its verdict."""

from __future__ import annotations

import argparse
import json
import secrets
import signal
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.arguments import progress
from scripts.drill_report import record, report
from scripts.drills import Context, Drill, DrillSkipped, Outcome, load, names
from scripts.exit_codes import CommandError, ExitCode

PROBLEMS_SHOWN = 20


def run(arguments: Sequence[str]) -> int:
    """Run a drill; 0: it passed, 1: it did not, 69 or 77: this machine cannot show it, 70: the drill itself broke."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview())
        return ExitCode.OK if arguments else ExitCode.USAGE
    name, *rest = arguments
    if name == "report":
        return report(rest)
    if name not in names():
        raise CommandError(f"no drill {name!r}; there are: {', '.join(names())}", ExitCode.USAGE)
    drill = load(name)
    options = _parser(name, drill).parse_args(rest)
    if options.plant is not None and options.plant not in drill.faults:
        raise CommandError(f"--plant {options.plant}: must be one of {', '.join(drill.faults)}", ExitCode.USAGE)
    # Hosts, processes and mounts of a drill that is ended must go with it.
    signal.signal(signal.SIGTERM, _interrupt)
    if options.controls:
        return _controls(name, drill, options)
    line, code = _play(name, drill, options, options.plant)
    if options.record is not None:
        record(options.record, line)
    _print(line, as_json=options.json)
    return code


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _parser(name: str, drill: Drill) -> argparse.ArgumentParser:
    faults = "".join(f"\n  {fault:<16}{text}" for fault, text in drill.faults.items())
    parser = argparse.ArgumentParser(
        prog=f"bullring drill {name}",
        description=f"{drill.summary}\n\nfaults it must notice (--plant):{faults}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="one JSON line, nothing else on standard output")
    parser.add_argument("--runs", type=int, default=drill.runs, metavar="N", help=f"rounds; {drill.runs} by default")
    parser.add_argument(
        "--seconds", type=float, metavar="N", help="as many rounds as this time allows, instead of --runs"
    )
    parser.add_argument("--seed", type=int, help="the same seed draws the same faults; printed with the verdict")
    parser.add_argument("--directory", type=Path, metavar="DIR", help="where to work: on the disk to be drilled")
    parser.add_argument("--plant", metavar="FAULT", help="plant a fault: the drill has to fail")
    parser.add_argument("--record", type=Path, metavar="FILE", help="append the verdict for `bullring drill report`")
    parser.add_argument("--controls", action="store_true", help="plant each fault in turn; passes if each is noticed")
    for option in drill.options:
        parser.add_argument(
            f"--{option.name}", type=type(option.default), default=option.default, metavar="N", help=option.help
        )
    return parser


def _play(name: str, drill: Drill, options: argparse.Namespace, planted: str | None) -> tuple[dict[str, Any], ExitCode]:
    seed = options.seed if options.seed is not None else secrets.randbits(32)
    own = {option.name: getattr(options, option.name.replace("-", "_")) for option in drill.options}
    line: dict[str, Any] = {"drill": name, "verdict": "", "planted": planted, "seed": seed, "options": own}
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix=f"bullring-drill-{name}-", dir=options.directory) as folder:
        # Mount points, locks and the like compare paths: no symbolic link on the way.
        context = Context(Path(folder).resolve(), seed, options.runs, options.seconds, planted, own, progress)
        try:
            outcome = drill.run(context)
        except DrillSkipped as skipped:
            return line | {"verdict": "skipped", "reason": str(skipped)}, skipped.code
        except Exception as error:
            # A drill that breaks has shown nothing: neither passed nor failed, and never mistaken for noticing a fault.
            traceback.print_exc()
            return line | {"verdict": "error", "reason": f"{type(error).__name__}: {error}"}, ExitCode.INTERNAL
    verdict = "pass" if outcome.passed else "fail"
    line |= {"verdict": verdict, "elapsed_s": round(time.monotonic() - began, 3), **outcome.facts}
    line |= {"problem_count": len(outcome.problems), "problems": outcome.problems[:PROBLEMS_SHOWN]}
    return line, ExitCode.OK if outcome.passed else ExitCode.NEGATIVE


def _controls(name: str, drill: Drill, options: argparse.Namespace) -> int:
    noticed: dict[str, Any] = {}
    for fault in drill.faults:
        line, code = _play(name, drill, options, fault)
        if line["verdict"] in ("skipped", "error"):
            _print(line, as_json=options.json)
            return code
        noticed[fault] = line["problems"][:1] if line["verdict"] == "fail" else None
    missed = [fault for fault, problems in noticed.items() if problems is None]
    verdict = Outcome({"controls": noticed}, [f"the planted fault {fault!r} was not noticed" for fault in missed])
    line = {
        "drill": name,
        "verdict": "pass" if verdict.passed else "fail",
        "problems": verdict.problems,
        **verdict.facts,
    }
    _print(line, as_json=options.json)
    return ExitCode.OK if verdict.passed else ExitCode.NEGATIVE


def _print(line: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(line), flush=True)
        return
    plain = {key: value for key, value in line.items() if key not in ("drill", "verdict", "problems", "planted")}
    planted = f", with the planted fault {line['planted']!r}" if line.get("planted") else ""
    print(f"{line['verdict'].upper()}: {line['drill']}{planted}")
    for key, value in plain.items():
        print(f"  {key}: {value}")
    for problem in line.get("problems", ()):
        print(f"  ! {problem}")


def _overview() -> str:
    lines = ["usage: bullring drill NAME [--json] [--runs N | --seconds N] [--plant FAULT | --controls]"]
    lines += ["       bullring drill report FILE [--json]: what was recorded with --record FILE", ""]
    lines += [f"  {name:<14}{load(name).summary}" for name in names()]
    return "\n".join(lines)
