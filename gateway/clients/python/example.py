"""Quote one pair around its own last fill, print what happens, pull everything at the end.

python -m gateway.clients.python.example HOST:PORT SESSION KEY-FILE SYMBOL TICKS-AROUND LOTS SECONDS

A start for an own program: logon, reference data, requests, reports by number, resume after a lost connection. Orders
are canceled by the exchange if this program is away for longer than two seconds.
"""

import asyncio
import contextlib
import sys
from pathlib import Path

from gateway.clients.python.client import BullringClient, Report
from gateway.clients.python.signing import load_signer
from ringbuf.wire.messages import CodType, MassCancelScope, OrderExecuted, QuoteAck, RejectCode, Side


class Quoter:
    """One quote, moved to where the last fill was."""

    def __init__(self, client: BullringClient, instrument_id: int, middle: int, around: int, lots: int) -> None:
        self._client = client
        self._instrument_id = instrument_id
        self._around = around
        self._lots = lots
        self.middle = middle
        self.fills = 0

    def quote(self) -> None:
        """Set both sides. Sent again by itself after a reconnect if it was not taken."""
        self._client.quote(
            instrument_id=self._instrument_id,
            bid=(self.middle - self._around, self._lots),
            ask=(self.middle + self._around, self._lots),
            post_only=True,
        )

    async def follow(self) -> None:
        """Read reports: each comes once and in the order of its partition."""
        async for item in self._client.reports():
            if not isinstance(item, Report):
                print(f"reports {item.from_seq_num}.. of partition {item.partition} are lost")
            elif isinstance(item.message, OrderExecuted):
                self.fills += 1
                self.middle = item.message.last_px
                print(f"{Side(item.message.side).name} {item.message.last_qty} lots at {item.message.last_px}")
                self.quote()
            elif isinstance(item.message, QuoteAck) and item.message.bid_reject_code != RejectCode.NONE:
                print(f"bid refused: {item.message.bid_reject_code!r}")


async def main(address: str, session: str, key_file: str, symbol: str, around: str, lots: str, seconds: str) -> int:
    """Log on and quote for some seconds; return the number of fills."""
    host, _, port = address.rpartition(":")
    client = BullringClient(
        [(host, int(port))],
        session_id=int(session),
        signer=load_signer(Path(key_file)),
        cod_type=CodType.ON_DISCONNECT_OR_TERMINATE,
        cod_timeout_ms=2000,
    )
    async with client:
        pair = next(reply for reply in await client.instruments() if reply.symbol == symbol)
        quoter = Quoter(client, pair.instrument_id, 10 * int(around), int(around), int(lots))
        quoter.quote()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(quoter.follow(), float(seconds))
        client.mass_cancel(scope=MassCancelScope.SESSION, instrument_id=pair.instrument_id)
    return quoter.fills


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
