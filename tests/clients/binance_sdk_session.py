"""A scripted session of the unmodified official SDK (binance-sdk-spot) against an exchange; as ccxt_session.py."""

import asyncio
import json
import sys
from importlib.metadata import version

from binance_common.configuration import (
    ConfigurationRestAPI,
    ConfigurationWebSocketAPI,
    ConfigurationWebSocketStreams,
)
from binance_common.errors import BadRequestError, UnauthorizedError
from binance_sdk_spot.spot import Spot
from market_maker import MarketMaker

SYMBOL = "ETHBTC"
BID, ASK = "0.0395", "0.0405"
WAIT_S = 60


def fields(data: object) -> dict:
    """The SDK logs and returns plain dicts where an answer does not fit its models: then this fails."""
    assert hasattr(data, "model_dump") or hasattr(data, "to_dict"), f"not a model: {data!r}"
    return data.to_dict() if hasattr(data, "to_dict") else data.model_dump()


def rest_session(facts: dict) -> dict:
    base = facts["rest"].removesuffix("/api/v3")
    configuration = ConfigurationRestAPI(
        api_key=facts["api_key"], api_secret=facts["api_secret"], base_path=base, timeout=10000
    )
    api = Spot(config_rest_api=configuration).rest_api
    fields(api.time().data())
    fields(api.exchange_info(symbol=SYMBOL).data())
    fields(api.depth(symbol=SYMBOL, limit=5).data())
    placed = api.new_order(
        symbol=SYMBOL, side="BUY", type="LIMIT", time_in_force="GTC", quantity=1.5, price=0.039,
        new_client_order_id="sdk-1",
    )  # fmt: skip
    order = fields(placed.data())
    assert order["status"] == "NEW", order
    limits = [f"{limit.rateLimitType}:{limit.count}" for limit in placed.rate_limits]
    assert limits
    seen = fields(api.get_order(symbol=SYMBOL, order_id=order["orderId"]).data())
    assert seen["clientOrderId"] == "sdk-1"
    amended = fields(api.order_amend_keep_priority(symbol=SYMBOL, new_qty=1.0, order_id=order["orderId"]).data())
    assert amended["amendedOrder"]["qty"] == "1.00000000", amended
    assert len(api.order_amendments(symbol=SYMBOL, order_id=order["orderId"]).data()) == 1
    replaced = fields(
        api.order_cancel_replace(
            symbol=SYMBOL, side="BUY", type="LIMIT", cancel_replace_mode="STOP_ON_FAILURE", time_in_force="GTC",
            quantity=0.5, price=0.038, cancel_order_id=order["orderId"],
        ).data()
    )  # fmt: skip
    assert replaced["cancelResult"] == "SUCCESS"
    fields(api.get_account().data())
    fields(api.account_commission(symbol=SYMBOL).data())
    assert len(api.get_open_orders(symbol=SYMBOL).data()) == 1
    assert len(api.delete_open_orders(symbol=SYMBOL).data()) == 1
    assert len(api.all_orders(symbol=SYMBOL).data()) >= 2
    oto = fields(
        api.order_list_oto(
            symbol=SYMBOL, working_type="LIMIT", working_side="BUY", working_price=0.037, working_quantity=1,
            working_time_in_force="GTC", pending_type="LIMIT_MAKER", pending_side="SELL", pending_price=0.043,
            pending_quantity=1,
        ).data()
    )  # fmt: skip
    assert len(oto["orders"]) == 2
    fields(api.delete_order_list(symbol=SYMBOL, order_list_id=oto["orderListId"]).data())
    try:
        api.get_order(symbol=SYMBOL, order_id=123456789)
        raise AssertionError("an unknown order was found")
    except BadRequestError as error:
        unknown = str(error)
    wrong = Spot(config_rest_api=ConfigurationRestAPI(api_key="nobody", api_secret="nothing", base_path=base)).rest_api
    try:
        wrong.get_account()
        raise AssertionError("a wrong key was taken")
    except UnauthorizedError as error:
        denied = str(error)
    return {"limits": limits, "errors": [unknown, denied]}


async def socket_session(facts: dict) -> dict:
    configuration = ConfigurationWebSocketAPI(
        api_key=facts["api_key"], api_secret=facts["api_secret"], stream_url=facts["ws_api"]
    )
    client = Spot(config_ws_api=configuration)
    connection = await client.websocket_api.create_connection()
    try:
        answer = await connection.order_place(
            symbol=SYMBOL, side="BUY", type="LIMIT", time_in_force="GTC", quantity=1, price=0.038
        )
        order = fields(answer.data().result)
        canceled = await connection.order_cancel(symbol=SYMBOL, order_id=order["orderId"])
        assert fields(canceled.data().result)["status"] == "CANCELED"
        return {"socketOrder": order["orderId"]}
    finally:
        await connection.close_connection(close_session=True)


async def stream_session(facts: dict) -> dict:
    """Public streams, each message through the SDK's models."""
    client = Spot(config_ws_streams=ConfigurationWebSocketStreams(stream_url=facts["streams"].removesuffix("/ws")))
    connection = await client.websocket_streams.create_connection()
    try:
        told = {}
        with MarketMaker(facts, SYMBOL, bid=BID, ask=ASK, quantity="50", trade="0.1"):
            for name, more in (("trade", {}), ("kline", {"interval": "1m"}), ("diff_book_depth", {}),
                               ("partial_book_depth", {"levels": "5"}), ("ticker", {})):  # fmt: skip
                arrived = asyncio.get_running_loop().create_future()
                stream = await getattr(connection, name)(symbol=SYMBOL.lower(), **more)
                stream.on("message", lambda data, told=arrived: None if told.done() else told.set_result(data))
                told[name] = fields(await asyncio.wait_for(arrived, WAIT_S))
                await stream.unsubscribe()
        assert float(told["trade"]["p"]) in (float(BID), float(ASK)), told
        assert float(told["partial_book_depth"]["bids"][0][0]) == float(BID), told
        return {"streams": sorted(told)}
    finally:
        await connection.close_connection(close_session=True)


def main() -> None:
    facts = json.loads(sys.argv[1])
    result = rest_session(facts)
    if "sockets" in facts["parts"]:
        result |= asyncio.run(socket_session(facts))
    if "streams" in facts["parts"]:
        result |= asyncio.run(stream_session(facts))
    print(json.dumps({"version": version("binance-sdk-spot"), **result}))


if __name__ == "__main__":
    main()
