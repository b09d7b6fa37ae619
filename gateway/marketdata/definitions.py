"""The reference channel: what the log says of instruments, as InstrumentDefinition messages in the order of the log.

A pure function of the log, so its numbers are the same on every node. What was found is kept in a file with the
position in the log, so that a restart need not read the whole log again. `status` is the state an instrument was
created in; the channels of its partition say what it is now.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy

from ringbuf.wire import messages as wire
from ringbuf.wire.base import WireMessage
from ringbuf.wire.market_codec import decode_market, encode_market
from ringbuf.wire.market_messages import InstrumentDefinition, SystemEvent, SystemEventCode

SLOT_SIZE = 128
SLOT_WORDS = SLOT_SIZE // 2
TEMPLATE_WORD, FLAGS_WORD = 3, 7  # u16 at offsets 6 and 14
BLOCK_OFFSET, TIME_OFFSET = 32, 112
REJECTED = 1 << 2
SAVE_RECORDS = 1 << 20
FORMAT = 1
_TEMPLATES = numpy.array(
    [wire.Template.GENESIS, wire.Template.ASSET_ADD, wire.Template.INSTRUMENT_ADD, wire.Template.INSTRUMENT_LIMITS],
    dtype="<u2",
)


class DefinitionsLost(Exception):
    """The file of definitions is gone or of another history, and the log no longer begins at its beginning."""


class Definitions:
    """Follows the log. `define` takes each message of the reference channel, in order, from the first on."""

    def __init__(self, path: Path, generation: str, define: Callable[[WireMessage], None]) -> None:
        """Hand over what the file knows of this generation; the log is to be read on from `position`."""
        self.position = 0
        self._path = path
        self._generation = generation
        self._define = define
        self._messages: list[WireMessage] = []
        self._assets: dict[int, str] = {}
        self._current: dict[int, InstrumentDefinition] = {}
        self._saved_at = 0
        self._load()

    def apply(self, first: int, records: bytes) -> None:
        """Take log records from sequence `first` on. Raises DefinitionsLost if some are missing before them."""
        if first > self.position:
            raise DefinitionsLost(f"the log begins at {first}, the definitions end at {self.position}")
        words = numpy.frombuffer(records, dtype="<u2").reshape(-1, SLOT_WORDS)
        found = numpy.isin(words[:, TEMPLATE_WORD], _TEMPLATES) & (words[:, FLAGS_WORD] & REJECTED == 0)
        known = len(self._messages), len(self._assets)
        for index in numpy.flatnonzero(found):
            if first + index >= self.position:
                self._take(int(words[index, TEMPLATE_WORD]), records, int(index) * SLOT_SIZE)
        self.position = max(self.position, first + len(words))
        if (len(self._messages), len(self._assets)) != known or self.position - self._saved_at >= SAVE_RECORDS:
            self.save()

    def save(self) -> None:
        """Write the file, whole or not at all."""
        facts = {
            "format": FORMAT,
            "generation": self._generation,
            "position": self.position,
            "assets": {str(number): symbol for number, symbol in self._assets.items()},
            "messages": [encode_market(message).hex() for message in self._messages],
        }
        temporary = self._path.with_suffix(".new")
        temporary.write_text(json.dumps(facts))
        temporary.rename(self._path)
        self._saved_at = self.position

    def _load(self) -> None:
        try:
            facts = json.loads(self._path.read_text())
        except (FileNotFoundError, ValueError):
            return  # everything in it can be read from the log again
        if facts.get("format") != FORMAT or facts.get("generation") != self._generation:
            return
        self.position = self._saved_at = facts["position"]
        self._assets = {int(number): symbol for number, symbol in facts["assets"].items()}
        for text in facts["messages"]:
            self._tell(decode_market(bytes.fromhex(text)))

    def _tell(self, message: WireMessage) -> None:
        self._messages.append(message)
        if isinstance(message, InstrumentDefinition):
            self._current[message.instrument_id] = message
        self._define(message)

    def _take(self, template: int, records: bytes, at: int) -> None:
        time_ns = int.from_bytes(records[at + TIME_OFFSET : at + TIME_OFFSET + 8], "little")
        match wire.MESSAGES[template].unpack(records, at + BLOCK_OFFSET):
            case wire.Genesis():
                self._tell(SystemEvent(transact_time=time_ns, event_code=SystemEventCode.START))
            case wire.AssetAdd() as asset:
                self._assets[asset.asset_id] = asset.symbol
            case wire.InstrumentAdd() as added:
                self._tell(self._added(added, time_ns))
            case wire.InstrumentLimits() as limits:
                self._tell(_limited(self._current[limits.instrument_id], limits, time_ns))

    def _added(self, added: wire.InstrumentAdd, time_ns: int) -> InstrumentDefinition:
        return InstrumentDefinition(
            transact_time=time_ns,
            tick_size=added.tick_size,
            lot_size=added.lot_size,
            min_qty=1,
            max_qty=(1 << 63) - 1,
            instrument_id=added.instrument_id,
            base_asset_id=added.base_asset_id,
            quote_asset_id=added.quote_asset_id,
            price_exponent=added.price_exponent,
            qty_exponent=added.qty_exponent,
            instrument_type=added.instrument_type,
            status=wire.MarketState.CONTINUOUS,
            symbol=added.symbol,
            base_asset=self._assets.get(added.base_asset_id, ""),
            quote_asset=self._assets.get(added.quote_asset_id, ""),
            partition=added.assigned_partition,
        )


def _limited(known: InstrumentDefinition, limits: wire.InstrumentLimits, time_ns: int) -> InstrumentDefinition:
    values = {name: getattr(known, name) for name in known.__match_args__}
    return InstrumentDefinition(
        **values
        | {
            "transact_time": time_ns,
            "min_qty": limits.min_qty,
            "max_qty": limits.max_qty,
            "min_notional": limits.min_notional,
        }
    )
