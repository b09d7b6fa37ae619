"""Names of streams: what is one, what is none."""

import pytest

from gateway.web.streams.names import Kind, StreamNameError, parse


@pytest.mark.parametrize(
    ("name", "kind", "field", "value"),
    [
        ("btcusdt@trade", Kind.TRADE, "symbol", "BTCUSDT"),
        ("BTCUSDT@trade", Kind.TRADE, "name", "btcusdt@trade"),
        ("btcusdt@depth", Kind.DIFF, "speed_ms", 1000),
        ("btcusdt@depth@100ms", Kind.DIFF, "speed_ms", 100),
        ("btcusdt@depth20@100ms", Kind.PARTIAL, "levels", 20),
        ("btcusdt@kline_1M", Kind.KLINE, "interval", "1M"),
        ("btcusdt@kline_1d@+08:00", Kind.KLINE, "zone_s", 28800),
        ("btcusdt@kline_1d@-03:30", Kind.KLINE, "zone_s", -12600),
        ("btcusdt@ticker_4h", Kind.WINDOW, "window", "4h"),
        ("!miniTicker@arr@1000ms", Kind.MINI, "symbol", ""),
        ("!ticker_1h@arr", Kind.WINDOW, "window", "1h"),
        ("btcusdt@book@100ms", Kind.BOOK, "latest_only", False),
        ("btcusdt@bookTicker", Kind.BOOK_TICKER, "latest_only", True),
    ],
)
def test_name_says_what_is_told(name: str, kind: Kind, field: str, value: object) -> None:
    stream = parse(name)

    assert stream.kind is kind
    assert getattr(stream, field) == value


@pytest.mark.parametrize(
    "name",
    ["", "0", "btcusdt", "btcusdt@", "@trade", "btcusdt@Trade", "btcusdt@kline_2m", "btcusdt@kline_1m@+15:00",
     "btcusdt@depth15", "btcusdt@depth@250ms", "!trade@arr", "btc/usdt@trade", "btcusdt@trade\n", "x" * 100 + "@trade"],
)  # fmt: skip
def test_other_names_are_none(name: str) -> None:
    with pytest.raises(StreamNameError, match="no stream is called"):
        parse(name)
