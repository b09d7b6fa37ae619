"""What the documents leave open, decided in one place; README.md lists the same points with their reasons.

Flip a constant here when the engine's authors decide otherwise.
"""

from __future__ import annotations

from typing import Final

# The answer to a cancel or replace goes to the session that asked, not to the one that entered the order.
CANCEL_ANSWER_TO_REQUESTER: Final = True
# The client order id an order already has counts as "open already" when its own replace names it again.
REPLACE_MAY_REPEAT_OWN_CL_ORD_ID: Final = False
# A market order that met nobody ends with NoLiquidity also when only its protection price stopped it.
MARKET_UNFILLED_IS_NO_LIQUIDITY: Final = True
# Limits that name a reference price do not replace the last trade as the reference.
NEW_REFERENCE_REPLACES_LAST_TRADE: Final = False
# Pending legs that a mark makes due are admitted and matched in the step that made the mark.
DUE_ORDERS_RUN_AT_ONCE: Final = True
# Fees are credited to account 0; what only rounding made goes to an account of its own.
HOUSE_ACCOUNT: Final = 0
DUST_ACCOUNT: Final = 4_294_967_294
# At most this many replaces and amends of one order, and quotes of one set, may be unanswered.
REPLACES_IN_FLIGHT_MAX: Final = 4
# Money and notional stay below this.
MONEY_LIMIT: Final = 1 << 62
RATE_SCALE: Final = 1_000_000
# No fee rate above 10 %.
RATE_MAX: Final = 100_000
BAND_SCALE: Final = 10_000
TRAILING_DELTA_MAX: Final = 9_999
GROUP_FRAMES_MAX: Final = 8
SECOND_NS: Final = 1_000_000_000
MILLISECOND_NS: Final = 1_000_000
DAY_SECONDS: Final = 86_400
# Orders and cancels are counted in windows of this length, aligned to the clock.
RATE_WINDOW_NS: Final = 10 * SECOND_NS
DAY_NS: Final = DAY_SECONDS * SECOND_NS
# Indicative prices are at least this far apart.
INDICATIVE_INTERVAL_NS: Final = 100 * MILLISECOND_NS
