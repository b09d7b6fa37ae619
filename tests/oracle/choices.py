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
# Fees are credited to account 0.
HOUSE_ACCOUNT: Final = 0
# At most this many replaces of one order may be unanswered.
REPLACES_IN_FLIGHT_MAX: Final = 4
# Money and notional stay below this.
MONEY_LIMIT: Final = 1 << 62
RATE_SCALE: Final = 1_000_000
# No fee rate above 10 %.
RATE_MAX: Final = 100_000
BAND_SCALE: Final = 10_000
