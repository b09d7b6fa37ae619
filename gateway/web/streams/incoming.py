"""What a client of streams sends: frames of RFC 6455, out of whatever pieces TCP brings."""

from __future__ import annotations

from collections.abc import Iterator

BINARY, PONG = 2, 10
_CONTINUATION, _FINAL, _MASKED, _CONTROL, _RESERVED = 0, 0x80, 0x80, 0x08, 0x70
_LENGTH_16, _LENGTH_64, CONTROL_MAX = 126, 127, 125
PROTOCOL_ERROR, TOO_BIG = 1002, 1009


class FrameError(ValueError):
    """The connection must be closed with `code`."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class FrameReader:
    """`feed()` bytes, get messages: opcode and content."""

    __slots__ = ("_data", "_message", "_opcode", "_size_max")

    def __init__(self, size_max: int) -> None:
        self._size_max = size_max
        self._data = b""
        self._message: bytearray | None = None
        self._opcode = 0

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield what is complete. Raises FrameError."""
        self._data += data
        while (frame := self._frame()) is not None:
            opcode, final, payload = frame
            if opcode & _CONTROL:
                if not final or len(payload) > CONTROL_MAX or opcode > PONG:
                    raise FrameError(PROTOCOL_ERROR, "a control frame must be whole and short")
                yield opcode, payload
                continue
            if (opcode == _CONTINUATION) == (self._message is None) or opcode > BINARY:
                raise FrameError(PROTOCOL_ERROR, "frames are out of order")
            if self._message is None:
                self._message, self._opcode = bytearray(), opcode
            self._message += payload
            if len(self._message) > self._size_max:
                raise FrameError(TOO_BIG, f"a message may have {self._size_max} bytes")
            if final:
                whole, self._message = bytes(self._message), None
                yield self._opcode, whole

    def _frame(self) -> tuple[int, bool, bytes] | None:
        data = self._data
        if len(data) < 2:
            return None
        if data[0] & _RESERVED or not data[1] & _MASKED:
            raise FrameError(PROTOCOL_ERROR, "frames must be masked and not compressed")
        size, at = data[1] & ~_MASKED, 2
        if size >= _LENGTH_16:
            at = 4 if size == _LENGTH_16 else 10
            if len(data) < at:
                return None
            size = int.from_bytes(data[2:at], "big")
        if size > self._size_max:
            raise FrameError(TOO_BIG, f"a message may have {self._size_max} bytes")
        end = at + 4 + size
        if len(data) < end:
            return None
        mask, payload = data[at : at + 4], data[at + 4 : end]
        self._data = data[end:]
        return data[0] & 0x0F, bool(data[0] & _FINAL), unmasked(payload, mask)


def unmasked(payload: bytes, mask: bytes) -> bytes:
    """Return what was masked."""
    size = len(payload)
    key = int.from_bytes((mask * (size // 4 + 1))[:size], "big")
    return (int.from_bytes(payload, "big") ^ key).to_bytes(size, "big")
