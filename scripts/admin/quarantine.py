"""`bullring quarantine list|propose|approve`: an input that a matcher dies on is taken out of effect by two people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from journaler import LogReader
from journaler.inspect import decode_slot
from ringbuf.wire import messages as wire
from scripts.admin.link import AdminLink
from scripts.arguments import add_common, command_parser, config_of, emit, emit_one
from scripts.auditing.account import time_text
from scripts.config import Config
from scripts.exit_codes import CommandError, ExitCode
from scripts.poison import Poison, read_all

OPERATOR_MAX = (1 << 32) - 1


def run(arguments: Sequence[str]) -> int:
    parser = command_parser("quarantine", "Inputs that a matcher dies on again and again.")
    actions = parser.add_subparsers(dest="action", required=True)
    listing = actions.add_parser("list", help="matchers that are down, and the record each dies on")
    propose = actions.add_parser("propose", help="say that the record is to be taken out of effect")
    approve = actions.add_parser("approve", help="agree, as another operator: the matcher comes back without it")
    for action in (propose, approve):
        action.add_argument("sequence", type=int, help="the record")
        action.add_argument("--operator", type=int, required=True, metavar="N", help="number of the one who says so")
    for action in (listing, propose, approve):
        add_common(action, nested=True)
    options = parser.parse_args(arguments)
    config = config_of(options)
    if options.action == "list":
        rows = [_row(config, poison) for poison in read_all(config.run_dir)]
        emit(rows, as_json=options.json, empty="no matcher is down")
        return ExitCode.OK
    if not 1 <= options.operator <= OPERATOR_MAX:
        raise CommandError(f"--operator {options.operator}: must be 1 to {OPERATOR_MAX}", ExitCode.USAGE)
    poison = _find(config, options.sequence)
    proposes = options.action == "propose"
    done = _propose(poison, options.operator) if proposes else _approve(config, poison, options.operator)
    done.save(config.run_dir)
    emit_one(_row(config, done), as_json=options.json)
    return ExitCode.OK


def _find(config: Config, sequence: int) -> Poison:
    found = read_all(config.run_dir)
    for poison in found:
        if poison.sequence == sequence:
            return poison
    there = ", ".join(str(poison.sequence) for poison in found) or "none"
    raise CommandError(f"no matcher is down because of record {sequence}; there are: {there}", ExitCode.NO_INPUT)


def _propose(poison: Poison, operator: int) -> Poison:
    return replace(poison, proposed_by=operator)


def _approve(config: Config, poison: Poison, operator: int) -> Poison:
    if poison.proposed_by == 0:
        raise CommandError(f"record {poison.sequence}: nobody has proposed it yet", ExitCode.REFUSED)
    if poison.proposed_by == operator:
        raise CommandError(f"record {poison.sequence}: proposed by the same operator {operator}", ExitCode.REFUSED)
    request = wire.Quarantine(target_seq=poison.sequence, first_operator=poison.proposed_by, second_operator=operator)
    with AdminLink.open(config) as link:
        link.command(request, f"quarantine of record {poison.sequence}")
    return replace(poison, quarantined=True)


def _row(config: Config, poison: Poison) -> dict[str, Any]:
    record = _record(config, poison.sequence)
    return {
        "process": poison.name,
        "partitions": ", ".join(map(str, poison.partitions)),
        "sequence": poison.sequence,
        "since": time_text(poison.since_ns),
        "template": record["template"],
        "session": record["session"],
        "fields": {name: value for name, value in record.get("fields", {}).items() if value is not None},
        "proposed_by": poison.proposed_by or None,
        "quarantined": poison.quarantined,
    }


def _record(config: Config, sequence: int) -> dict[str, Any]:
    for first, slots in LogReader(config.journal_dir).batches(sequence, sequence + 1):
        at = (sequence - first) * 128
        return decode_slot(sequence, slots[at : at + 128])
    raise CommandError(f"record {sequence} is not in the log's files", ExitCode.NO_INPUT)
