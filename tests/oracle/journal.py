"""The journal's format and the judgement of a damaged one, slow and obvious: bytes in, verdict out, no file, no C.

Written from RELIABILITY section 3 and the head of journaler/format.h; shares no code with the journaler.
"""

from dataclasses import dataclass
from struct import Struct

SLOT = 128
SEGMENT_HEADER = 512
BATCH = Struct("<IIIHHQIIQQQQ")
SEGMENT = Struct("<QIIQQQQIIQQQQ")
BATCH_MAGIC = 0x4A524E4C
SEGMENT_MAGIC = 0x314C4E524A4C4C42
MASK = 2**64 - 1
EPOCH_START = 301

_CRC = []
for _value in range(256):
    for _ in range(8):
        _value = _value >> 1 ^ (0x82F63B78 if _value & 1 else 0)
    _CRC.append(_value)

KEYS = (
    0xA0761D6478BD642F, 0xE7037ED1A0B428DB, 0x8EBC6AF09C88C6E3, 0x589965CC75374CC3,
    0x1D8E4E27C47D124F, 0xEB44ACCAB455D165, 0x9C6E6877736C46E3, 0x2D358DCCAA6C78A5,
    0x8BB84B93962EACC9, 0x4B33A62ED433D4A3, 0x4D5A2DA51DE1AA47, 0xAAAAAAAAAAAAAAAB,
    0x5851F42D4C957F2D, 0x14057B7EF767814F, 0x27BB2EE687B0B0FD, 0x2545F4914F6CDD1D,
)  # fmt: skip
SEQUENCE_FACTOR = 0x9E3779B97F4A7C15
EPOCH_FACTOR = 0xD1B54A32D192ED03
FINAL = 0x8CB92BA72F3D8DD7


def crc32c(data: bytes, seed: int = 0) -> int:
    crc = seed ^ 0xFFFFFFFF
    for byte in data:
        crc = _CRC[(crc ^ byte) & 255] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def fold(a: int, b: int) -> int:
    product = a * b
    return product & MASK ^ product >> 64


def record_hash(before: int, sequence: int, epoch: int, slot: bytes) -> int:
    words = Struct("<16Q").unpack(slot)
    total = sum(fold(words[i] ^ KEYS[i], words[i + 1] ^ KEYS[i + 1]) for i in range(0, 16, 2))
    total += fold(sequence ^ SEQUENCE_FACTOR, epoch ^ EPOCH_FACTOR)
    return fold(total & MASK ^ FINAL, before ^ SEQUENCE_FACTOR)


def epoch_after(slot: bytes, epoch: int) -> int:
    template = int.from_bytes(slot[6:8], "little")
    rejected = slot[14] & 4
    return max(epoch, int.from_bytes(slot[32:40], "little")) if template == EPOCH_START and not rejected else epoch


@dataclass
class Chain:
    sequence: int = 0
    epoch: int = 0
    batch: int = 0
    log_hash: int = 0
    crc: int = 0

    def batch_bytes(self, slots: bytes, ts_ns: int = 0, flags: int = 0) -> bytes:
        """Append a batch to the chain and return its bytes."""
        count = len(slots) // SLOT
        self.epoch = epoch_after(slots[:SLOT], self.epoch)
        for index in range(count):
            slot = slots[index * SLOT : (index + 1) * SLOT]
            self.log_hash = record_hash(self.log_hash, self.sequence + index, self.epoch, slot)
        self.batch += 1
        fields = [BATCH_MAGIC, len(slots), 0, flags, 1, self.sequence, count, self.crc]
        fields += [self.epoch, self.batch, self.log_hash, ts_ns]
        self.crc = crc32c(BATCH.pack(*fields) + slots, self.crc)
        fields[2] = self.crc
        self.sequence += count
        return BATCH.pack(*fields) + slots

    def segment_header(self, size: int) -> bytes:
        fields = [SEGMENT_MAGIC, 1, 0, self.sequence, self.epoch, self.batch, self.log_hash, self.crc, 0, 0, 0, size, 0]
        fields[2] = crc32c(SEGMENT.pack(*fields).ljust(SEGMENT_HEADER, b"\0"), self.crc)
        return SEGMENT.pack(*fields).ljust(SEGMENT_HEADER, b"\0")


def build(batches: list[bytes], size: int, chain: Chain | None = None) -> bytes:
    """Return a segment of `size` bytes with these batches."""
    chain = chain or Chain()
    data = chain.segment_header(size) + b"".join(chain.batch_bytes(slots) for slots in batches)
    return data.ljust(size, b"\0")


def parse(data: bytes, chain: Chain) -> tuple[int, list[bytes]]:
    """Follow the chain; return the offset after the last whole batch and the slots of the batches up to there."""
    expected = chain.segment_header(len(data))
    stored = SEGMENT.unpack_from(data)
    zeroed = bytearray(data[:SEGMENT_HEADER])
    zeroed[12:16] = bytes(4)
    if stored[0] != SEGMENT_MAGIC or stored[2] != crc32c(bytes(zeroed), chain.crc) or stored[3] != chain.sequence:
        return 0, []
    offset, found = len(expected), []
    while offset + BATCH.size <= len(data):
        magic, length, crc, _, _, first, count, before, epoch, number, _, _ = BATCH.unpack_from(data, offset)
        slots = data[offset + BATCH.size : offset + BATCH.size + length]
        if magic != BATCH_MAGIC or count * SLOT != length or len(slots) != length or not count:
            break
        if (first, before, number) != (chain.sequence, chain.crc, chain.batch + 1):
            break
        head = bytearray(data[offset : offset + BATCH.size])
        head[8:12] = bytes(4)
        if crc32c(bytes(head) + slots, chain.crc) != crc:
            break
        chain.sequence, chain.crc, chain.batch, chain.epoch = first + count, crc, number, epoch
        found.append(slots)
        offset += BATCH.size + length
    return offset, found


def judge(data: bytes, mark: int | None) -> tuple[str, int]:
    """Return clean, torn or refused, and the sequence up to which the log is kept (J4, J5). One segment."""
    chain = Chain()
    offset, batches = parse(data, chain)
    if not batches:
        offset = 0
    if mark is not None and chain.sequence < mark:
        return "refused", chain.sequence
    if not any(data[offset:]):
        return "clean", chain.sequence
    for at in range(offset, len(data) - BATCH.size + 1, 64):
        magic, length, crc, flags, _, _, _, before, _, number, _, _ = BATCH.unpack_from(data, at)
        slots = data[at + BATCH.size : at + BATCH.size + length]
        if magic != BATCH_MAGIC or number < chain.batch + 2 or len(slots) != length or flags & 1:
            continue
        head = bytearray(data[at : at + BATCH.size])
        head[8:12] = bytes(4)
        if crc32c(bytes(head) + slots, before) == crc:
            return "refused", chain.sequence
    return "torn", chain.sequence
