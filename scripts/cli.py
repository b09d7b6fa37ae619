"""The `bullring` command: finds the subcommand and hands over; what a subcommand needs is imported only then."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from scripts.exit_codes import CommandError, ExitCode

# Name -> (module with `run(arguments) -> int`, help, usage of its arguments shown in the overview)
COMMANDS: dict[str, tuple[str, str]] = {
    "run": ("scripts.run_node", "run the exchange of a configuration until asked to stop"),
    "demo": ("scripts.demo", "run it with pairs, funded accounts and a demo market"),
    "cluster": ("scripts.cluster", "two nodes: keys, state, switchover"),
    "stat": ("scripts.stat", "live cursors, lags, rates and latencies of a running exchange"),
    "account": ("scripts.admin.account", "create, list, show accounts; deposit"),
    "key": ("scripts.admin.key", "create API keys"),
    "session": ("scripts.admin.session", "create and list sessions"),
    "instrument": ("scripts.admin.instrument", "add, list, halt, resume pairs"),
    "asset": ("scripts.admin.asset", "add and list assets"),
    "quarantine": ("scripts.admin.quarantine", "take an input that a matcher dies on out of effect, by two people"),
    "client": ("gateway.clients.commands", "log on and trade from the command line"),
    "feed": ("scripts.feed.command", "market data: watch, record, tokens"),
    "ledger": ("scripts.ledger.commands", "the books: statements, balances, reports, reconciliation, export"),
    "journal": ("scripts.journal", "verify, show, export, repair, trim journal files"),
    "snapshot": ("scripts.snapshot", "list, take, verify snapshots of the state"),
    "replay": ("scripts.replay", "apply the log again: state and output hash, comparison of two logs or builds"),
    "audit": ("scripts.audit", "what an account held at a time, and why; what a broken invariant came from"),
    "history": ("scripts.history_command", "check what clients wrote down against the log"),
    "ship": ("scripts.ship", "copy the log to another site as it grows"),
    "restore": ("scripts.restore", "make a data folder from a shipped log, or show that it can be made"),
    "dissector": ("scripts.dissector", "install the Wireshark dissector of our protocols"),
    "install": ("scripts.install", "lay out units, users and configuration under a root folder"),
    "host": ("scripts.host", "check, and on request tune, this host"),
    "replay-flow": ("scripts.replay_flow", "send recorded order flow, compare every execution and checkpoint"),
    "drill": ("scripts.drill", "inject a fault and judge what came of it: drill NAME, one of scripts/drills/"),
    "bench": ("", "measure: bench NAME, one of scripts/bench/"),
}
PROGRAM = "bullring"
BENCHES = Path(__file__).with_name("bench")
INDENT = 14


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code (docs/EXIT_CODES.md)."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help", "help"):
        print(overview())
        return ExitCode.OK if given else ExitCode.USAGE
    if given[0] in ("-V", "--version"):
        from importlib.metadata import version

        print(version("bullring-exchange"))
        return ExitCode.OK
    try:
        return _dispatch(given[0], given[1:])
    except CommandError as error:
        _report(error, wants_json="--json" in given)
        return error.code
    except BrokenPipeError:
        # The reader of our output has gone; python would complain once more while closing it.
        sys.stderr.close()
        return ExitCode.IO_ERROR
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED


def overview() -> str:
    lines = [f"usage: {PROGRAM} COMMAND ...", "", "commands:"]
    lines += [f"  {name:<{INDENT}}{text}" for name, (_, text) in COMMANDS.items()]
    lines += [
        "",
        f"`{PROGRAM} COMMAND --help` says more. Every command takes --json; exit codes: docs/EXIT_CODES.md.",
    ]
    return "\n".join(lines)


def _dispatch(name: str, rest: list[str]) -> int:
    if name not in COMMANDS:
        raise CommandError(f"unknown command {name!r}{_nearest(name)}", ExitCode.USAGE)
    module_name, _ = COMMANDS[name]
    if name == "bench":
        if not rest or rest[0] in ("-h", "--help"):
            print(_bench_overview())
            return ExitCode.OK if rest else ExitCode.USAGE
        module_name, rest = _bench(rest[0]), rest[1:]
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not module_name.startswith(error.name):
            raise
        raise CommandError(f"`{PROGRAM} {name}`: {module_name} is not part of this build", ExitCode.USAGE) from error
    return int(module.run(rest))


def _benches() -> dict[str, Path]:
    return {path.stem: path for path in sorted(BENCHES.glob("*.py")) if not path.stem.startswith("_")}


def _bench(name: str) -> str:
    names = _benches()
    if name in names:
        return f"scripts.bench.{name}"
    raise CommandError(f"no bench {name!r}; there are: {', '.join(names) or 'none'}", ExitCode.USAGE)


def _bench_overview() -> str:
    lines = [f"usage: {PROGRAM} bench NAME ...", ""]
    for name, path in _benches().items():
        first = path.read_text(encoding="utf-8").partition("\n")[0]
        lines.append(f"  {name:<{INDENT}}{first.partition(': ')[2]}")
    return "\n".join([*lines, "", f"`{PROGRAM} bench NAME --help` says more."])


def _nearest(name: str) -> str:
    import difflib

    found = difflib.get_close_matches(name, COMMANDS, n=1)
    return f"; did you mean {found[0]}?" if found else f"; `{PROGRAM} --help` lists them"


def _report(error: CommandError, *, wants_json: bool) -> None:
    if wants_json:
        import json

        print(json.dumps({"ok": False, "error": str(error), "exit_code": int(error.code)}))
    print(f"{PROGRAM}: {error}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
