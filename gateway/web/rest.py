"""REST over aiohttp: from a request's bytes to an endpoint's answer."""

from __future__ import annotations

import asyncio
import re
import time
import urllib.parse
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from aiohttp import web

from gateway.web.api import Call, Endpoint, Security
from gateway.web.auth import bad_signature, payload
from gateway.web.errors import INTERNAL, ApiError
from gateway.web.gateway import Gateway
from gateway.web.metrics import Metrics

UTF8 = "application/json;charset=UTF-8"
BODY_METHODS = ("POST", "PUT", "DELETE")
COMPRESS_FROM = 1024
BODY_S = 10.0
PARAMS_MAX = 256
_PLAIN = re.compile(r"^[^%+]*$")


def parse_form(raw: str) -> dict[str, str]:
    """Return the fields of a query or form body; of a repeated name the first. Raises ApiError."""
    if not raw:
        return {}
    if _PLAIN.match(raw):
        pairs = [part.partition("=") for part in raw.split("&") if part]
        found = [(name, value) for name, _, value in pairs]
    else:
        try:
            found = urllib.parse.parse_qsl(raw, keep_blank_values=True, errors="strict")
        except ValueError:
            raise ApiError(-1100, "Illegal characters found in a parameter; it must be UTF-8.") from None
    if len(found) > PARAMS_MAX:
        text = f"Too many parameters; expected at most '{PARAMS_MAX}' and received '{len(found)}'."
        raise ApiError(-1101, text)
    fields: dict[str, str] = {}
    for name, value in found:
        fields.setdefault(name, value)
    return fields


class RestEndpoint:
    """One route: reads, authenticates, limits, calls, answers."""

    def __init__(self, gateway: Gateway, endpoint: Endpoint, metrics: Metrics) -> None:
        self._gateway = gateway
        self._endpoint = endpoint
        self._metrics = metrics

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        started = time.perf_counter()
        call = Call(self._gateway, {}, address=request.remote or "")
        try:
            result = await self._answer(request, call)
            response = json_response(result, headers=call.headers)
        except ApiError as error:
            response = error_response(error, call.headers)
        if response.content_length is not None and response.content_length >= COMPRESS_FROM:
            response.enable_compression()
        self._metrics.request(self._endpoint, response.status, time.perf_counter() - started)
        return response

    async def _answer(self, request: web.Request, call: Call) -> Any:
        endpoint, gateway = self._endpoint, self._gateway
        _, _, query = request.raw_path.partition("?")
        body = b""
        if endpoint.method in BODY_METHODS and request.body_exists:
            body = await self._body(request)
        form = parse_form(_text(body))
        fields = parse_form(query)
        call.params = {**form, **fields} if form else fields
        call.microseconds = time_unit(request.headers.get("X-MBX-TIME-UNIT"))
        weight = gateway.admit(endpoint, call)
        if endpoint.security is not Security.NONE:
            await self._authenticate(request, call, query.encode(), body, fields, form)
            gateway.charge_key(endpoint, call, weight)
        call.values = endpoint.parse(call.params)
        result = await endpoint.handler(call)
        if endpoint.free_on_success:
            gateway.free(call, weight)
        return result

    async def _body(self, request: web.Request) -> bytes:
        try:
            if request.content.is_eof():  # all of it came with the head
                return await request.read()
            async with asyncio.timeout(BODY_S):
                return await request.read()
        except TimeoutError:
            text = f"The body did not come within {BODY_S:g} s."
            raise ApiError(-1104, text, status=408, details={"limit": BODY_S}) from None
        except web.HTTPRequestEntityTooLarge:
            limit = self._gateway.config.body_bytes_max
            text = f"The body is larger than {limit} bytes."
            raise ApiError(-1104, text, status=413, details={"limit": limit}) from None

    async def _authenticate(
        self, request: web.Request, call: Call, query: bytes, body: bytes, fields: dict[str, str], form: dict[str, str]
    ) -> None:
        gateway, endpoint = self._gateway, self._endpoint
        access_key = request.headers.get("X-MBX-APIKEY")
        if endpoint.security is Security.USER_STREAM:
            call.key = await gateway.key(access_key)
            gateway.check(call.key, endpoint.security)
            return
        if "signature" in fields and "signature" in form:
            raise bad_signature()
        signed_bytes = payload(query, body)
        payloads: tuple[bytes, ...] = (signed_bytes,)
        if b"%" in signed_bytes or b"+" in signed_bytes:
            payloads += (self._decoded(signed_bytes),)
        signed = await gateway.verify(
            access_key, call.params.get("signature"), payloads, timestamp=call.params.get("timestamp"),
            recv_window=call.params.get("recvWindow"),
        )  # fmt: skip
        gateway.check(signed.key, endpoint.security)
        call.key, call.deadline_us = signed.key, signed.deadline_us

    @staticmethod
    def _decoded(signed_bytes: bytes) -> bytes:
        """What older libraries sign: the values before they were percent-encoded."""
        plain = urllib.parse.unquote_plus(signed_bytes.decode("utf-8", "surrogateescape")).encode(
            "utf-8", "surrogateescape"
        )
        return plain


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise ApiError(-1100, "Illegal characters found in a parameter; it must be UTF-8.") from None


def time_unit(text: str | None) -> bool:
    """Return whether times shall be in us. Raises ApiError -1194."""
    if text is None:
        return False
    unit = text.upper()
    if unit not in ("MICROSECOND", "MILLISECOND"):
        raise ApiError(-1194, "Invalid value for time unit; expected either MICROSECOND or MILLISECOND.")
    return unit == "MICROSECOND"


def json_bytes(body: Any) -> bytes:
    return orjson.dumps(body)


def json_response(body: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(body=json_bytes(body), status=status, headers={**(headers or {}), "Content-Type": UTF8})


def error_response(error: ApiError, headers: dict[str, str]) -> web.Response:
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s)
    return json_response(error.body(), status=error.status, headers=headers)


@web.middleware
async def errors_as_json(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Answer what aiohttp itself refuses, and what went wrong in us, in the API's form."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        code = {404: -1102, 405: -1102, 413: -1104}.get(error.status, -1000)
        text = {404: "Path not found.", 405: "Method not allowed for this path."}.get(error.status, error.reason)
        headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
        return json_response({"code": code, "msg": text}, status=error.status, headers=headers)
    except ApiError as error:
        return error_response(error, {})
    except ConnectionError:
        raise
    except Exception:
        request.app.logger.exception("unexpected error at %s", request.path)
        text = "An unknown error occurred while processing the request."
        return json_response({"code": -1000, "msg": text}, status=INTERNAL)
