"""`bullring instrument add|list|halt|resume`."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass

from ringbuf.wire import messages as wire
from scripts.admin.link import AdminLink
from scripts.amounts import UNITS_MAX, from_units, step, to_units
from scripts.arguments import add_common, command_parser, config_of, emit, emit_one
from scripts.exit_codes import CommandError, ExitCode

PRICE_TICKS_MAX = (1 << 53) - 1
BASIS_POINTS_MAX = 1_000_000
SYMBOL_LENGTH_MAX = 24


@dataclass(frozen=True)
class Pair:
    """A spot pair in decimal terms; the limits left None are as wide as the arithmetic allows."""

    symbol: str
    base: str
    quote: str
    tick: str
    lot: str
    partition: int = 0
    min_qty: str | None = None
    max_qty: str | None = None
    min_notional: str | None = None
    reference: str | None = None
    band_bps: int = 0
    min_price: str | None = None


def run(arguments: Sequence[str]) -> int:
    parser = command_parser("instrument", "Pairs and their market state.")
    actions = parser.add_subparsers(dest="action", required=True)
    add = actions.add_parser("add", help="add a spot pair; it opens at once")
    _add_arguments(add)
    listing = actions.add_parser("list", help="list pairs")
    halt = actions.add_parser("halt", help="refuse new orders; cancels still work")
    resume = actions.add_parser("resume", help="continuous trading again")
    for action in (halt, resume):
        action.add_argument("symbol")
    for action in (add, listing, halt, resume):
        add_common(action, nested=True)
    options = parser.parse_args(arguments)
    config = config_of(options)

    with AdminLink.open(config) as link:
        if options.action == "list":
            emit(rows(link), as_json=options.json, empty="no instruments")
        elif options.action == "add":
            pair = Pair(
                options.symbol, options.base, options.quote, options.tick, options.lot, options.partition,
                options.min_qty, options.max_qty, options.min_notional, options.reference, options.band_bps,
            )  # fmt: skip
            instrument = add_pair(link, pair, config.placement.partitions)
            emit_one({"instrument": options.symbol, "instrument_id": instrument}, as_json=options.json)
        else:
            state = wire.MarketState.HALTED if options.action == "halt" else wire.MarketState.CONTINUOUS
            instrument = link.instrument(options.symbol).instrument_id
            set_state(link, instrument, state)
            emit_one({"instrument": options.symbol, "state": state.name.lower()}, as_json=options.json)
    return ExitCode.OK


def _add_arguments(add: argparse.ArgumentParser) -> None:
    add.add_argument("symbol", help=f"for instance BTC-USDT; at most {SYMBOL_LENGTH_MAX} characters")
    add.add_argument("--base", required=True, metavar="ASSET")
    add.add_argument("--quote", required=True, metavar="ASSET")
    add.add_argument("--tick", required=True, metavar="PRICE", help="smallest price step, for instance 0.01")
    add.add_argument("--lot", required=True, metavar="QTY", help="smallest quantity step, for instance 0.00001")
    add.add_argument(
        "--partition", type=int, default=0, metavar="N", help="matcher; default: the one with fewest pairs"
    )
    add.add_argument("--min-qty", metavar="QTY", help="smallest order (default: one lot)")
    add.add_argument("--max-qty", metavar="QTY", help="largest order (default: no bound of its own)")
    add.add_argument("--min-notional", metavar="AMOUNT", help="smallest order value in the quote asset (default: none)")
    add.add_argument("--reference", metavar="PRICE", help="reference price until the first trade")
    add.add_argument(
        "--band-bps", type=int, default=0, choices=range(BASIS_POINTS_MAX), metavar="BPS",
        help="refuse prices farther than this from the reference; 0 = no band, and market buys by quantity are refused",
    )  # fmt: skip


def add_pair(link: AdminLink, pair: Pair, partitions: int) -> int:
    """Add the pair and its limits, return its id. Raises CommandError naming field and limit."""
    if re.fullmatch(r"[A-Z0-9]+([-._/][A-Z0-9]+)*", pair.symbol) is None or len(pair.symbol) > SYMBOL_LENGTH_MAX:
        text = f"instrument {pair.symbol!r}: must be 1 to {SYMBOL_LENGTH_MAX} characters A-Z 0-9, with - . _ / between"
        raise CommandError(text, ExitCode.BAD_INPUT)
    base, quote = link.asset(pair.base), link.asset(pair.quote)
    if base.asset_id == quote.asset_id:
        raise CommandError(f"--quote {pair.quote}: must be another asset than --base", ExitCode.BAD_INPUT)
    if not 0 <= pair.partition <= partitions:
        raise CommandError(f"--partition {pair.partition}: must be 1 to {partitions}", ExitCode.BAD_INPUT)
    tick_size, price_exponent = step(pair.tick, "--tick")
    lot_size, qty_exponent = step(pair.lot, "--lot")
    base_per_lot = to_units(pair.lot, base.exponent, "--lot")
    quote_per_tick_lot = _quote_per_tick_lot(pair, quote.exponent)
    message = wire.InstrumentAdd(
        tick_size=tick_size,
        lot_size=lot_size,
        quote_per_tick_lot=quote_per_tick_lot,
        base_per_lot=base_per_lot,
        base_asset_id=base.asset_id,
        quote_asset_id=quote.asset_id,
        assigned_partition=pair.partition or _emptiest_partition(link, partitions),
        price_exponent=price_exponent,
        qty_exponent=qty_exponent,
        symbol=pair.symbol,
    )
    instrument = link.command(message, f"instrument {pair.symbol}")
    link.command(_limits(pair, instrument, base, quote, base_per_lot), f"limits of {pair.symbol}")
    return instrument


def _quote_per_tick_lot(pair: Pair, quote_exponent: int) -> int:
    tick, tick_exponent = step(pair.tick, "--tick")
    lot, lot_exponent = step(pair.lot, "--lot")
    # One unit of the quote asset must divide one tick of one lot: else a trade could cost a fraction of a unit.
    return to_units(from_units(tick * lot, tick_exponent + lot_exponent), quote_exponent, "--tick x --lot")


def _limits(
    pair: Pair, instrument: int, base: wire.AssetReply, quote: wire.AssetReply, base_per_lot: int
) -> wire.InstrumentLimits:
    def lots(text: str | None, default: int, name: str) -> int:
        return default if text is None else _whole(to_units(text, base.exponent, name), base_per_lot, text, name)

    return wire.InstrumentLimits(
        min_qty=lots(pair.min_qty, 1, "--min-qty"),
        max_qty=lots(pair.max_qty, UNITS_MAX // base_per_lot, "--max-qty"),
        min_notional=0 if pair.min_notional is None else to_units(pair.min_notional, quote.exponent, "--min-notional"),
        max_notional=0,
        min_px=1 if pair.min_price is None else ticks(pair.min_price, pair.tick, "--min-price"),
        max_px=PRICE_TICKS_MAX,
        reference_px=None if pair.reference is None else ticks(pair.reference, pair.tick, "--reference"),
        instrument_id=instrument,
        band_up_bps=pair.band_bps,
        band_down_bps=pair.band_bps,
    )


def ticks(text: str, tick: str, name: str) -> int:
    mantissa, exponent = step(tick, "--tick")
    return _whole(to_units(text, exponent, name), mantissa, text, name)


def _whole(units: int, per_step: int, text: str, name: str) -> int:
    if units % per_step:
        raise CommandError(f"{name} = {text}: must be a whole number of steps", ExitCode.BAD_INPUT)
    return units // per_step


def _emptiest_partition(link: AdminLink, partitions: int) -> int:
    counts = dict.fromkeys(range(1, partitions + 1), 0)
    for reply in link.instruments().values():
        counts[reply.assigned_partition] = counts.get(reply.assigned_partition, 0) + 1
    return min(counts, key=lambda partition: (counts[partition], partition))


def set_state(link: AdminLink, instrument: int, state: wire.MarketState) -> None:
    link.command(wire.InstrumentState(instrument_id=instrument, state=state), f"state {state.name.lower()}")


def rows(link: AdminLink) -> list[dict[str, object]]:
    assets = {reply.asset_id: reply.symbol for reply in link.assets().values()}
    return [
        {
            "instrument": reply.symbol,
            "instrument_id": reply.instrument_id,
            "base": assets.get(reply.base_asset_id, str(reply.base_asset_id)),
            "quote": assets.get(reply.quote_asset_id, str(reply.quote_asset_id)),
            "tick": from_units(reply.tick_size, reply.price_exponent),
            "lot": from_units(reply.lot_size, reply.qty_exponent),
            "partition": reply.assigned_partition,
            "state": reply.state.name.lower() if isinstance(reply.state, wire.MarketState) else str(reply.state),
            "open_orders": reply.open_orders,
        }
        for reply in link.instruments().values()
    ]
