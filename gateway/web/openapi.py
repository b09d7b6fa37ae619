"""The OpenAPI document of the REST surface, made from the endpoints the routes are made from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gateway.web.api import INT64_MAX, Endpoint, Kind, Param, Security
from gateway.web.decimals import NUMBER

VERSION = "1.0.0"
DESCRIPTION = (
    "REST in Binance Spot shapes. Signed calls carry `timestamp`, `signature` and the header X-MBX-APIKEY; parameters"
    " of POST, PUT and DELETE may be in the query, in a form body, or in both. Errors are {code, msg[, details]}."
)
SIGNED = (
    Param("timestamp", Kind.INTEGER, required=True, low=0, doc="ms or us since the epoch"),
    Param("recvWindow", Kind.DECIMAL, doc="ms, at most 60000, default 5000"),
    Param("signature", required=True, doc="of query and body as sent, without itself"),
)
_ERROR = {"$ref": "#/components/schemas/Error"}
_ERROR_STATUSES = {
    "400": "refused: see code, msg and details",
    "401": "unknown key or missing permission",
    "418": "banned for going on after 429",
    "429": "over a limit; Retry-After says for how long",
    "503": "not done; try again",
    "504": "outcome unknown; query the order",
}


def document(endpoints: Iterable[Endpoint], server: str) -> dict[str, Any]:
    """Return the document."""
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Bullring REST", "version": VERSION, "description": DESCRIPTION},
        "servers": [{"url": server}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-MBX-APIKEY"},
            },
            "schemas": {
                "Error": {
                    "type": "object",
                    "required": ["code", "msg"],
                    "properties": {
                        "code": {"type": "integer", "maximum": -1},
                        "msg": {"type": "string"},
                        "details": {"type": "object", "description": "what was wrong: field, value, limit, nearest"},
                        "data": {"type": "object"},
                    },
                },
            },
        },
    }


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    signed = endpoint.security in (Security.USER_DATA, Security.TRADE)
    params = endpoint.params + (SIGNED if signed else ())
    weight = endpoint.weight if isinstance(endpoint.weight, int) else "by parameters"
    answer = {"type": ["object", "array"]} if endpoint.answer == "either" else {"type": endpoint.answer}
    return {
        "operationId": f"{endpoint.method.lower()}{endpoint.path.replace('/', '_').replace('-', '_')}",
        "summary": endpoint.summary,
        "description": f"Security: {endpoint.security}. Weight: {weight}."
        + (f" On the WebSocket API: `{endpoint.socket}`." if endpoint.socket else ""),
        "parameters": [_parameter(param) for param in params],
        "security": [] if endpoint.security is Security.NONE else [{"apiKey": []}],
        "responses": {
            "200": {"description": "done", "content": {"application/json": {"schema": answer}}},
            **{
                status: {"description": text, "content": {"application/json": {"schema": _ERROR}}}
                for status, text in _ERROR_STATUSES.items()
            },
            **(
                {"409": {"description": "half done", "content": {"application/json": {"schema": _ERROR}}}}
                if endpoint.path.endswith("cancelReplace")
                else {}
            ),
        },
    }


def _parameter(param: Param) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": param.name, "in": "query", "required": param.required, "schema": _schema(param)}
    if param.doc:
        entry["description"] = param.doc
    return entry


def _schema(param: Param) -> dict[str, Any]:
    match param.kind:
        case Kind.INTEGER:
            schema: dict[str, Any] = {"type": "integer", "minimum": param.low if param.low is not None else -INT64_MAX}
            schema["maximum"] = INT64_MAX if param.high is None or param.clamp else param.high
            return schema
        case Kind.DECIMAL:
            return {"type": "string", "pattern": NUMBER}
        case Kind.BOOLEAN:
            return {"type": "boolean"}
        case Kind.STRINGS | Kind.JSON:
            return {"type": "string", "contentMediaType": "application/json"}
    schema = {"type": "string", "minLength": 1}
    if param.choices:
        schema = {"type": "string", "enum": list(param.choices)}
    elif param.pattern:
        schema["pattern"] = param.pattern
    return schema
