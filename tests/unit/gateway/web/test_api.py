"""Endpoints as data: what they parse, that names are unique, and that the OpenAPI document holds them all."""

import pytest

from gateway.web.api import Endpoint, Kind, Param
from gateway.web.auth import MICROSECONDS_FROM
from gateway.web.endpoints import ENDPOINTS
from gateway.web.errors import ApiError
from gateway.web.market_view import candle_end, candle_start
from gateway.web.openapi import document
from gateway.web.rest import parse_form


def code_of(param: Param, text: object) -> int:
    with pytest.raises(ApiError) as error:
        param.parse(text)
    return error.value.code


@pytest.mark.parametrize(
    ("param", "text", "code"),
    [
        (Param("n", Kind.INTEGER), "1.5", -1100),
        (Param("n", Kind.INTEGER), "9" * 25, -1100),
        (Param("n", Kind.INTEGER, low=1), "0", -1130),
        (Param("d", Kind.DECIMAL), "-1", -1100),
        (Param("b", Kind.BOOLEAN), "yes", -1130),
        (Param("s", Kind.STRINGS), "BTCUSDT", -1135),
        (Param("s", Kind.STRINGS), '["A","A"]', -1151),
        (Param("s", Kind.STRINGS), "[]", -1100),
        (Param("c", choices=("A",), bad_code=(-1117, "Invalid side.")), "B", -1117),
        (Param("t"), "", -1105),
    ],
)
def test_bad_values_are_refused_with_their_code(param: Param, text: str, code: int) -> None:
    assert code_of(param, text) == code


def test_limit_above_the_largest_counts_as_the_largest() -> None:
    assert Param("limit", Kind.INTEGER, low=1, high=1000, clamp=True).parse("5000") == 1000


def test_unknown_parameters_are_left_alone_and_missing_ones_named() -> None:
    async def nothing(_: object) -> None:
        return None

    endpoint = Endpoint("GET", "/x", "", nothing, (Param("symbol", required=True),))

    assert endpoint.parse({"symbol": "A", "extra": "1"}) == {"symbol": "A"}
    with pytest.raises(ApiError, match="Mandatory parameter 'symbol'"):
        endpoint.parse({"extra": "1"})


def test_routes_and_socket_methods_are_unique() -> None:
    routes = [(endpoint.method, endpoint.path) for endpoint in ENDPOINTS]
    methods = [endpoint.socket for endpoint in ENDPOINTS if endpoint.socket]

    assert len(routes) == len(set(routes))
    assert len(methods) == len(set(methods))


def test_document_names_every_endpoint_and_parameter() -> None:
    made = document(ENDPOINTS, "http://localhost")

    for endpoint in ENDPOINTS:
        operation = made["paths"][endpoint.path][endpoint.method.lower()]
        assert {param.name for param in endpoint.params} <= {entry["name"] for entry in operation["parameters"]}
    operations = [operation["operationId"] for path in made["paths"].values() for operation in path.values()]
    assert len(operations) == len(set(operations)) == len(ENDPOINTS)


def test_form_keeps_the_first_of_a_repeated_name_and_decodes() -> None:
    assert parse_form("a=1&a=2&b=%5B1%5D&c=") == {"a": "1", "b": "[1]", "c": ""}
    with pytest.raises(ApiError):
        parse_form("a=%ff")


@pytest.mark.parametrize(
    ("interval", "start_s", "end_s"),
    [
        ("1m", 1_800_000_000, 1_800_000_060),
        ("1d", 1_799_971_200, 1_800_057_600),
        ("1w", 1_799_625_600, 1_800_230_400),  # a Monday
        ("1M", 1_798_761_600, 1_801_440_000),  # January 2027
    ],
)
def test_candles_begin_where_the_calendar_says(interval: str, start_s: int, end_s: int) -> None:
    ns = 1_000_000_000
    start = candle_start(interval, 1_800_000_030 * ns)

    assert (start, candle_end(interval, start)) == (start_s * ns, end_s * ns)
    assert candle_start(interval, start) == start
    assert candle_start(interval, start - 1) < start


def test_a_time_is_taken_for_microseconds_by_its_size() -> None:
    assert 10**13 < MICROSECONDS_FROM < 10**15
