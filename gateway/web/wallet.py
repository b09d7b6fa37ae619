"""Wallet shapes: what clients load at start answers; deposits and withdrawals say cleanly that there are none here."""

from __future__ import annotations

from typing import Any

from gateway.web.account import account, balances, is_zero
from gateway.web.api import SYMBOL_OPTIONAL, Call, Endpoint, Kind, Param, Security
from gateway.web.decimals import to_text
from gateway.web.errors import ApiError
from ringbuf.wire import messages as wire

NOT_AVAILABLE = "Deposits and withdrawals are not available on this exchange."
COIN = Param("coin", required=True)


async def coins(call: Call) -> list[dict[str, Any]]:
    zero = to_text(0, 0)
    return [
        {
            "coin": asset,
            "name": asset,
            "depositAllEnable": False,
            "withdrawAllEnable": False,
            "free": free,
            "locked": locked,
            "freeze": zero,
            "withdrawing": zero,
            "ipoing": zero,
            "ipoable": zero,
            "storage": zero,
            "isLegalMoney": False,
            "trading": True,
            "networkList": [],
        }
        for asset, free, locked in await balances(call)
    ]


async def nothing(call: Call) -> list[Any]:
    return []


async def not_available(call: Call) -> Any:
    raise ApiError(-4018, NOT_AVAILABLE)


async def trade_fees(call: Call) -> list[dict[str, Any]]:
    reference = call.gateway.reference
    chosen = [call.instrument()] if "symbol" in call.values else list(reference.by_symbol.values())
    rows = []
    for instrument in chosen:
        maker, taker = reference.rates(call.account, instrument.id)
        rows.append(
            {
                "symbol": instrument.symbol,
                "makerCommission": to_text(maker, -6),
                "takerCommission": to_text(taker, -6),
            }
        )
    return rows


async def system_status(call: Call) -> dict[str, Any]:
    up = call.gateway.core.established
    return {"status": 0, "msg": "normal"} if up else {"status": 1, "msg": "system maintenance"}


async def account_status(call: Call) -> dict[str, Any]:
    return {"data": "Normal"}


async def trading_status(call: Call) -> dict[str, Any]:
    return {
        "data": {
            "isLocked": False,
            "plannedRecoverTime": 0,
            "triggerCondition": {"GCR": 0, "IFER": 0, "UFR": 0},
            "updateTime": call.time(call.gateway.now_us() * 1000),
        }
    }


async def restrictions(call: Call) -> dict[str, Any]:
    key = call.key
    assert key is not None  # a signed endpoint
    account_made = call.gateway.reference.accounts.get(call.account)
    return {
        "ipRestrict": False,
        "createTime": call.time(account_made.created_ns if account_made is not None else 0),
        "enableReading": key.may(wire.Permissions.READ),
        "enableSpotAndMarginTrading": key.may(wire.Permissions.TRADE),
        "enableWithdrawals": False,
        "enableInternalTransfer": False,
        "enableMargin": False,
        "enableFutures": False,
        "permitsUniversalTransfer": False,
        "enableVanillaOptions": False,
        "enableFixApiTrade": False,
        "enableFixReadOnly": False,
        "enablePortfolioMarginTrading": False,
    }


async def user_assets(call: Call) -> list[dict[str, Any]]:
    zero = to_text(0, 0)
    return [
        {
            "asset": asset, "free": free, "locked": locked, "freeze": zero, "withdrawing": zero, "ipoable": zero,
            "btcValuation": zero,
        }
        for asset, free, locked in await balances(call)
        if not (is_zero(free) and is_zero(locked)) and call.get("asset") in (None, asset)
    ]  # fmt: skip


async def asset_detail(call: Call) -> dict[str, Any]:
    zero = to_text(0, 0)
    return {
        asset.symbol: {"minWithdrawAmount": zero, "depositStatus": False, "withdrawFee": zero, "withdrawStatus": False}
        for asset in call.gateway.reference.assets.values()
    }


async def snapshot(call: Call) -> dict[str, Any]:
    """The account as it is now; there are no daily ones."""
    now = await account(call)
    return {
        "code": 200,
        "msg": "",
        "snapshotVos": [
            {
                "type": "spot",
                "updateTime": now["updateTime"],
                "data": {"totalAssetOfBtc": to_text(0, 0), "balances": now["balances"]},
            }
        ],
    }


def _signed(method: str, path: str, summary: str, handler: Any, *params: Param, answer: str = "object") -> Endpoint:
    return Endpoint(method, path, summary, handler, params, security=Security.USER_DATA, answer=answer)


ENDPOINTS = (
    _signed("GET", "/sapi/v1/capital/config/getall", "Assets with balances", coins, answer="array"),
    Endpoint("GET", "/sapi/v1/margin/allPairs", "No margin pairs", nothing, answer="array"),
    Endpoint("GET", "/sapi/v1/margin/isolated/allPairs", "No margin pairs", nothing, answer="array"),
    _signed("GET", "/sapi/v1/capital/deposit/address", "Not available", not_available, COIN, Param("network")),
    _signed("GET", "/sapi/v1/capital/deposit/hisrec", "No deposits over networks", nothing, answer="array"),
    Endpoint(
        "POST",
        "/sapi/v1/capital/withdraw/apply",
        "Not available",
        not_available,
        (COIN, Param("address", required=True), Param("amount", Kind.DECIMAL, required=True)),
        security=Security.USER_DATA,
    ),
    _signed("GET", "/sapi/v1/capital/withdraw/history", "No withdrawals over networks", nothing, answer="array"),
    _signed("GET", "/sapi/v1/asset/tradeFee", "Commission rates", trade_fees, SYMBOL_OPTIONAL, answer="array"),
    Endpoint("GET", "/sapi/v1/system/status", "System status", system_status),
    _signed("GET", "/sapi/v1/account/status", "Account status", account_status),
    _signed("GET", "/sapi/v1/account/apiTradingStatus", "Trading status", trading_status),
    _signed("GET", "/sapi/v1/account/apiRestrictions", "What the key may do", restrictions),
    _signed(
        "POST", "/sapi/v3/asset/getUserAsset", "Assets that are not zero", user_assets, Param("asset"), answer="array"
    ),
    _signed("GET", "/sapi/v1/accountSnapshot", "The account now", snapshot, Param("type")),
    _signed("GET", "/sapi/v1/asset/assetDetail", "Deposit and withdrawal terms", asset_detail),
    _signed("GET", "/sapi/v1/asset/transfer", "No transfers", nothing, answer="array"),
    _signed("POST", "/sapi/v1/asset/transfer", "Not available", not_available),
    _signed("GET", "/sapi/v1/spot/delist-schedule", "Nothing is to be delisted", nothing, answer="array"),
)
