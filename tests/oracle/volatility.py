"""The volatility band: the trade that would leave it, the halt instead of it, and the way back."""

from __future__ import annotations

from ringbuf.wire.messages import MarketState
from tests.oracle.choices import BAND_SCALE, MILLISECOND_NS
from tests.oracle.orders import Market, VolatilityHalt
from tests.oracle.states import MarketStates


def is_outside_band(market: Market, reference: int | None, price: int) -> bool:
    """Return True if a trade at this price would be outside the band around the volatility reference."""
    band = market.volatility
    if band is None or reference is None:
        return False
    above = band.up_bps > 0 and price * BAND_SCALE > reference * (BAND_SCALE + band.up_bps)
    below = band.down_bps > 0 and price * BAND_SCALE < reference * (BAND_SCALE - band.down_bps)
    return above or below


class Volatility(MarketStates):
    """Halt, then auction, then continuous again: each step at a tick."""

    def halt(self, market: Market) -> None:
        """Stop the market instead of a trade outside the band."""
        market.halt = VolatilityHalt(self.now_ns + market.volatility.halt_ms * MILLISECOND_NS)
        self.set_state(market, MarketState.HALTED)

    def volatility_step(self, market: Market) -> None:
        """Go one step of the way back when its time has come."""
        halt, band = market.halt, market.volatility
        if halt is None or band is None:
            return
        if self.now_ns < halt.until_ns:
            return
        if halt.is_auction:
            market.halt = None
            self.set_state(market, MarketState.CONTINUOUS)
        else:
            market.halt = VolatilityHalt(self.now_ns + band.auction_ms * MILLISECOND_NS, is_auction=True)
            self.set_state(market, MarketState.AUCTION)

    def volatility_reference(self, market: Market, before_ns: int | None) -> None:
        """Take the last price as the reference at the first tick of each interval."""
        band = market.volatility
        if band is None or band.reference_ms == 0 or market.last_px is None:
            return
        length_ns = band.reference_ms * MILLISECOND_NS
        if before_ns is None or self.now_ns // length_ns != before_ns // length_ns:
            market.volatility_px = market.last_px
