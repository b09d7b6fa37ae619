"""A ledger goes on from an image as if it had read the log from its first record; what is wrong is passed over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from settlement.chdb_store import ChdbStore
from settlement.derivation import Block, Derivation
from settlement.errors import LogTrimmed
from settlement.images import KEPT, Image, Images
from settlement.source import FileSource
from settlement.store import Store
from tests.kit.ledger_books import Books, chdb_store
from tests.kit.ledger_market import record_market
from tests.kit.ledger_run import SLOT_SIZE, Recording

EVERY = 100


@pytest.fixture(scope="module")
def market() -> Recording:
    return record_market(300, partitions=2)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ChdbStore]:
    made = chdb_store(tmp_path / "store")
    yield made
    made.close()


def part_of(market: Recording, end: int) -> Recording:
    return Recording(market.records[: end * SLOT_SIZE], market.reports)


def run_books(store: Store, market: Recording, folder: Path, **settings: Any) -> Books:
    books = Books(store, market, images=folder, image_records=EVERY, batch=16, **settings)
    books.run()
    books.stop()
    return books


def postings(store: Store) -> list[tuple[int, ...]]:
    rows = store.select("SELECT * FROM postings")
    return sorted(zip(*(rows[name].tolist() for name in sorted(rows)), strict=True))


def accounts(store: Store) -> list[tuple[Any, ...]]:
    rows = store.select("SELECT * FROM accounts")
    return sorted(zip(*(rows[name].tolist() for name in sorted(rows)), strict=True))


# --- the derivation ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_derivation_goes_on_from_an_image_as_from_the_state_itself(market: Recording, share: float) -> None:
    original = Derivation(insurance_account=2)
    market.feed(original, int(market.end * share) or 1)
    original.take()

    image = original.image()
    other = Derivation.from_image(image)

    assert other is not None
    assert other.image() == image
    assert (other.position, other.epoch, other.cluster) == (original.position, original.epoch, original.cluster)
    assert (other.insurance_account, other.counts()) == (2, original.counts())
    for derivation in (original, other):
        market.feed(derivation)
    assert other.counts() == original.counts()
    assert other.balances().as_dict() == original.balances().as_dict()
    assert_same(original.take(), other.take())


def assert_same(expected: Block, got: Block) -> None:
    assert (expected.first, expected.end) == (got.first, got.end)
    for kind in ("postings", "trades", "orders"):
        for name, column in getattr(expected, kind).items():
            np.testing.assert_array_equal(column, getattr(got, kind)[name], err_msg=f"{kind}.{name}")


def test_image_is_taken_between_blocks_only(market: Recording) -> None:
    derivation = Derivation()
    market.feed(derivation)

    with pytest.raises(ValueError, match="take or drop"):
        derivation.image()
    derivation.drop()

    assert Derivation.from_image(derivation.image()) is not None


def test_bytes_that_are_no_image_are_refused_and_never_believed(market: Recording) -> None:
    derivation = Derivation()
    market.feed(derivation, market.end // 2)
    derivation.drop()
    image = derivation.image()
    random = np.random.default_rng(3)

    assert Derivation.from_image(b"") is None
    assert Derivation.from_image(bytes([image[0] ^ 1]) + image[1:]) is None, "another layout"
    for size in [*random.integers(0, len(image), 200).tolist(), len(image) - 1]:
        assert Derivation.from_image(image[:size]) is None
    assert Derivation.from_image(image + b"\0") is None
    for _ in range(2000):
        # The checksum is the file's; here only nothing may lead out of bounds.
        changed = bytearray(image)
        changed[int(random.integers(0, len(image)))] ^= 1 << int(random.integers(0, 8))
        Derivation.from_image(bytes(changed))


# --- files ------------------------------------------------------------------------------------------------------------


def image_at(position: int) -> Image:
    return Image(position, bytes(SLOT_SIZE), np.array([[1, 2, 3]], np.uint32), b"state")


def test_two_images_are_kept_and_the_log_may_go_up_to_the_older_one(tmp_path: Path) -> None:
    images = Images(tmp_path / "images")
    assert (images.positions(), images.needed_from) == ([], 0)

    needed = []
    for position in (10, 20, 30):
        images.store(image_at(position))
        needed.append(images.needed_from)

    assert needed == [0, 10, 20]
    assert images.positions() == [20, 30]
    assert len(images.positions()) == KEPT
    loaded = images.load(30)
    assert loaded is not None
    assert (loaded.position, loaded.state, loaded.owners.tolist()) == (30, b"state", [[1, 2, 3]])
    # Books that were made again have come less far: what lies beyond is of the ones before.
    images.store(image_at(15))
    assert images.positions() == [15]
    images.clear()
    assert images.positions() == []


def test_damaged_image_is_none(tmp_path: Path) -> None:
    images = Images(tmp_path)
    images.store(image_at(10))
    path = next(tmp_path.glob("*.image"))
    whole = path.read_bytes()

    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert images.load(10) is None
        path.write_bytes(whole[:at])
        assert images.load(10) is None
    path.write_bytes(whole)
    assert images.load(10) is not None
    assert images.load(11) is None


# --- the consumer -----------------------------------------------------------------------------------------------------


def test_consumer_starts_from_an_image_and_the_books_are_the_same(
    store: ChdbStore, market: Recording, tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    first = run_books(store, part_of(market, market.end * 3 // 4), folder)
    kept = Images(folder).positions()
    assert len(kept) == KEPT
    assert first.needed_from[-1] == kept[0]

    second = run_books(store, market, folder, token=2)

    assert first.read_from == [0]
    assert second.read_from == [kept[1]]
    assert second.consumer.status.began == kept[1]
    assert second.consumer.status.state == "running"
    expected = Derivation()
    market.feed(expected)
    assert second.consumer.counts == expected.counts()
    after = (postings(store), accounts(store))
    store.close()
    fresh = chdb_store(tmp_path / "fresh")
    run_books(fresh, market, tmp_path / "other")
    assert (postings(fresh), accounts(fresh)) == after
    fresh.close()


def test_image_as_new_as_the_books_is_left_for_the_one_before(
    store: ChdbStore, market: Recording, tmp_path: Path
) -> None:
    """Else no record of the log would be compared with the books."""
    folder = tmp_path / "images"
    run_books(store, part_of(market, market.end // 2), folder)
    kept = Images(folder).positions()
    for table in ("postings", "trades", "orders", "blocks", "assets", "instruments", "accounts"):
        column = "end" if table == "blocks" else "sequence"
        limit = kept[1] if table == "blocks" else kept[1] - 1
        store.execute(f"ALTER TABLE {table} DELETE WHERE {column} > {limit}")

    assert run_books(store, market, folder, token=2).read_from == [kept[0]]


@pytest.mark.parametrize("wrong", ["damaged", "another log", "another insurance account", "beyond the books"])
def test_image_that_is_not_of_these_books_is_passed_over(
    store: ChdbStore, market: Recording, tmp_path: Path, wrong: str
) -> None:
    folder = tmp_path / "images"
    half = part_of(market, market.end // 2)
    run_books(store, half, folder)
    images = Images(folder)
    for position in images.positions():
        image = images.load(position)
        assert image is not None
        derivation = Derivation(insurance_account=1 if wrong == "another insurance account" else 0)
        market.feed(derivation, position)
        derivation.drop()
        path = folder / f"{position:020d}.image"
        if wrong == "damaged":
            path.write_bytes(path.read_bytes()[:-1])
        elif wrong == "another log":
            path.write_bytes(Image(position, b"x" * SLOT_SIZE, image.owners, image.state).pack())
        elif wrong == "another insurance account":
            path.write_bytes(Image(position, image.last_record, image.owners, derivation.image()).pack())
        else:
            path.rename(folder / f"{position + 10**6:020d}.image")

    books = run_books(store, market, folder, token=2)

    assert books.read_from == [0]
    assert books.consumer.counts.marks_differing == 0


# --- a log without its beginning --------------------------------------------------------------------------------------


def trimmed(market: Recording, folder: Path) -> int:
    """Write the market's journal without its first segment; return where it begins then."""
    market.write(folder)
    segments = sorted(path for path in folder.iterdir() if path.is_file() and path.suffix == ".log")
    assert len(segments) > 1, [path.name for path in folder.iterdir()]
    segments[0].unlink()
    with pytest.raises(LogTrimmed) as caught:
        FileSource(folder)
    return int(str(caught.value).split("begins at record ")[1].split()[0])


def test_trimmed_log_is_read_from_an_image_or_refused(tmp_path: Path) -> None:
    market = record_market(5000)
    first = trimmed(market, tmp_path / "journal")
    images = Images(tmp_path / "images")
    derivation = Derivation()
    market.feed(derivation, first + 7)
    derivation.drop()
    image = Image(first + 7, bytes(SLOT_SIZE), np.empty((0, 3), np.uint32), derivation.image())

    assert images.oldest(log_first=first, end=market.end, insurance_account=0) is None
    images.store(image)
    assert images.oldest(log_first=first, end=first + 6, insurance_account=0) is None
    assert images.oldest(log_first=first + 8, end=market.end, insurance_account=0) is None
    assert images.oldest(log_first=first, end=market.end, insurance_account=5) is None
    found = images.oldest(log_first=first, end=market.end, insurance_account=0)

    assert found is not None
    assert found.position == first + 7
    fresh = images.oldest(log_first=0, end=market.end, insurance_account=5)
    assert fresh is not None
    assert (fresh.position, fresh.insurance_account) == (0, 5)
    assert FileSource(tmp_path / "journal", first).read() is not None


def test_consumer_without_an_image_stops_before_a_trimmed_log(store: ChdbStore, tmp_path: Path) -> None:
    market = record_market(5000)
    first = trimmed(market, tmp_path / "journal")
    books = Books(store, market)
    books.consumer._make_source = lambda start: FileSource(tmp_path / "journal", start)

    while books.consumer.status.state != "halted":
        books.consumer.step()

    assert f"begins at record {first} and is needed from record 0 on" in books.consumer.status.trouble
    assert not books.consumer.step()
    books.stop()
