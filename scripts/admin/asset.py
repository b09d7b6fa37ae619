"""`bullring asset add|list`."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ringbuf.wire import messages as wire
from scripts.admin.link import AdminLink
from scripts.amounts import from_units, unit_text
from scripts.arguments import add_common, command_parser, config_of, emit, emit_one
from scripts.exit_codes import CommandError, ExitCode

EXPONENT_MIN, EXPONENT_MAX = -18, 0
DECIMALS_DEFAULT = 8


def run(arguments: Sequence[str]) -> int:
    parser = command_parser("asset", "Assets: what balances are held in.")
    actions = parser.add_subparsers(dest="action", required=True)
    add = actions.add_parser("add", help="add an asset")
    add.add_argument("symbol", help="for instance BTC; 1 to 12 characters A-Z 0-9")
    add.add_argument(
        "--decimals", type=int, default=DECIMALS_DEFAULT, choices=range(-EXPONENT_MIN + 1), metavar="0..18",
        help=f"one unit is 10^-DECIMALS; supply must stay below 2^62 units (default {DECIMALS_DEFAULT})",
    )  # fmt: skip
    listing = actions.add_parser("list", help="list assets with the sum of all balances")
    for action in (add, listing):
        add_common(action, nested=True)
    options = parser.parse_args(arguments)

    with AdminLink.open(config_of(options)) as link:
        if options.action == "add":
            asset_id = add_asset(link, options.symbol, -options.decimals)
            row = {"asset": options.symbol, "asset_id": asset_id, "unit": unit_text(-options.decimals)}
            emit_one(row, as_json=options.json)
        else:
            emit([as_row(reply) for reply in link.assets().values()], as_json=options.json, empty="no assets")
    return ExitCode.OK


def add_asset(link: AdminLink, symbol: str, exponent: int) -> int:
    """Add an asset, return its id. Raises CommandError."""
    if re.fullmatch(r"[A-Z0-9]{1,12}", symbol) is None:
        raise CommandError(f"asset {symbol!r}: must be 1 to 12 characters A-Z 0-9", ExitCode.BAD_INPUT)
    return link.command(wire.AssetAdd(symbol=symbol, exponent=exponent), f"asset {symbol}")


def as_row(reply: wire.AssetReply) -> dict[str, object]:
    return {
        "asset": reply.symbol,
        "asset_id": reply.asset_id,
        "unit": unit_text(reply.exponent),
        "total": from_units(reply.total, reply.exponent),
    }
