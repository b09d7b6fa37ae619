"""What the tests of docs/*.md share: the pair their examples trade, and the fenced blocks that hold checked text."""

import re
from pathlib import Path

from engine import ComposedEngine, EngineConfig
from ringbuf.wire import messages as wire
from tests.kit.composed_exchange import Exchange

DOCS = Path(__file__).parents[2] / "docs"
TAKER_RATE = 500  # ppm
MAKER_REBATE = -100  # ppm
BAND_BPS = 500


def bitcoin_exchange() -> Exchange:
    """Return a started exchange with BTC-USDT as the documents list it.

    Units are 10^-8 BTC and 10^-8 USDT; a tick is 0.01 USDT, a lot 0.00001 BTC: one tick x one lot = 10 units of USDT,
    one lot = 1000 units of BTC.
    """
    exchange = Exchange(ComposedEngine(EngineConfig()))
    exchange.engine.start()
    exchange.admin(wire.AssetAdd(exponent=-8, symbol="BTC"))
    exchange.admin(wire.AssetAdd(exponent=-8, symbol="USDT"))
    exchange.admin(
        wire.InstrumentAdd(
            tick_size=1,
            price_exponent=-2,
            lot_size=1,
            qty_exponent=-5,
            quote_per_tick_lot=10,
            base_per_lot=1000,
            base_asset_id=1,
            quote_asset_id=2,
            symbol="BTC-USDT",
        )
    )
    exchange.admin(
        wire.InstrumentLimits(
            instrument_id=1,
            min_qty=1,
            max_qty=10_000_000,
            min_notional=0,
            max_notional=0,
            min_px=1,
            max_px=100_000_000,
            reference_px=4_300_000,
            band_up_bps=BAND_BPS,
            band_down_bps=BAND_BPS,
        )
    )
    exchange.admin(wire.FeeTierSet(tier=0, maker_rate=MAKER_REBATE, taker_rate=TAKER_RATE))
    return exchange


def fenced(document: str, language: str) -> list[str]:
    """Return the contents of a document's blocks that are fenced with this language, in order."""
    text = (DOCS / document).read_text(encoding="utf-8")
    return [body.strip("\n") for body in re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)]
