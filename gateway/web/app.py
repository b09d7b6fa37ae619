"""One worker of the web gateway: the aiohttp application and its life."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

from aiohttp import web
from aiohttp.log import web_logger

from gateway.web.config import WebConfig
from gateway.web.core_link import CoreLink, InputReader
from gateway.web.endpoints import ENDPOINTS
from gateway.web.express import ExpressLane
from gateway.web.express_connection import ExpressSite
from gateway.web.gateway import Gateway
from gateway.web.guard import HeadGuard
from gateway.web.listen_keys import PATTERN as LISTEN_KEY
from gateway.web.listen_keys import ListenKeys, ListenKeySockets
from gateway.web.listen_keys import endpoints as listen_key_endpoints
from gateway.web.metrics import Metrics
from gateway.web.openapi import document
from gateway.web.operator import OperatorData, Sources
from gateway.web.rest import RestEndpoint, errors_as_json, json_bytes, json_response
from gateway.web.site import Pages
from gateway.web.streams import asyncapi
from gateway.web.streams.live import LiveMarket
from gateway.web.streams.sockets import StreamLimits, StreamSockets
from gateway.web.user_streams import UserStreams
from gateway.web.ws_api import SocketApi

SHUTDOWN_S = 3.0
BACKLOG = 1024
HEADER_BYTES_MAX = 16_384


class WebGateway:
    """`start()` listens, `stop()` ends."""

    def __init__(
        self, config: WebConfig, *, core: CoreLink, inputs: InputReader, live: LiveMarket, operator: Sources,
    ) -> None:
        """`live`: books of the markets. `operator`: what the operator's page shows."""
        self._config = config
        self.gateway = Gateway(config, core=core, inputs=inputs, live=live)
        self.metrics = Metrics(config.number)
        self.lane = ExpressLane(self.gateway, self.metrics, web_logger)
        self._guard = HeadGuard()
        self._tasks: list[asyncio.Task[None]] = []
        self.streams = UserStreams(self.gateway)
        path = config.store_path.with_name("listen_keys.db")
        self._listen_keys = ListenKeys(path) if config.listen_keys else None
        if self._listen_keys is not None:
            self._listen_sockets = ListenKeySockets(self.gateway, self._listen_keys, self.streams)
        self._document = b""
        self._operator = OperatorData(self.gateway, operator, config.operator_token)
        self.sockets = SocketApi(self.gateway, self.streams, self.metrics, web_logger)
        self.market = StreamSockets(self.gateway, live, stream_limits(config))
        self._runner: web.AppRunner | None = None

    def application(self) -> web.Application:
        """Return the application with every route."""
        app = web.Application(middlewares=[errors_as_json], client_max_size=self._config.body_bytes_max)
        endpoints = ENDPOINTS
        if self._listen_keys is not None:
            endpoints += listen_key_endpoints(self._listen_keys)
            app.router.add_get(f"/ws/{{listen_key:{LISTEN_KEY}}}", self._listen_sockets.handle)
        self._document = json_bytes(document(endpoints, self._url()))
        for endpoint in endpoints:
            handler = RestEndpoint(self.gateway, endpoint, self.metrics)
            app.router.add_route(endpoint.method, endpoint.path, handler.__call__)
        app.router.add_get("/openapi.json", self._openapi)
        app.router.add_get("/ws-api/v3", self.sockets.handle)
        app.router.add_routes(Pages().routes())
        app.router.add_get("/operator/data", self._operator.handle)
        app.router.add_get("/asyncapi.json", self._asyncapi)
        for path in ("/ws", "/ws/{names:.*}", "/stream"):
            app.router.add_get(path, self.market.handle)
        app.router.add_get("/health", self._health)
        app.router.add_get("/ready", self._ready)
        app.router.add_get("/metrics", self._metrics_text)
        return app

    async def start(self, *, wait_for_core: bool = True) -> None:
        await self.gateway.start(wait_for_core=wait_for_core)
        self.market.start()
        self._runner = web.AppRunner(
            self.application(), access_log=None, handle_signals=False, max_line_size=HEADER_BYTES_MAX,
            max_field_size=HEADER_BYTES_MAX, shutdown_timeout=SHUTDOWN_S,
        )  # fmt: skip
        await self._runner.setup()
        site = ExpressSite(
            self._runner, self.lane, self._config.host, self._config.port, reuse_port=True, backlog=BACKLOG,
            ssl_context=self._tls(),
        )  # fmt: skip
        await site.start()
        self._tasks = [
            asyncio.create_task(self._guard.run(self._runner.server)),
            asyncio.create_task(self._operator.run()),
        ]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.sockets.shutdown()
        await self.market.shutdown()
        if self._listen_keys is not None:
            await self._listen_sockets.shutdown()
            self._listen_keys.close()
        self.streams.stop()
        if self._runner is not None:
            await self._runner.cleanup()
        await self.gateway.stop()

    def numbers(self) -> dict[str, int]:
        """Return what `bullring stat` shows of this worker."""
        return {
            **self.gateway.numbers(),
            **self.market.numbers(),
            "silent_closed": self._guard.closed,
            "express_orders": self.lane.orders,
            "socket_connections": self.sockets.count,
            "socket_slow_closed": self.sockets.slow,
            "user_subscriptions": self.streams.count,
        }

    def _url(self) -> str:
        config = self._config
        host = f"[{config.host}]" if ":" in config.host else config.host
        return f"{'http' if config.tls_certificate is None else 'https'}://{host}:{config.port}"

    def _tls(self) -> ssl.SSLContext | None:
        if self._config.tls_certificate is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self._config.tls_certificate, self._config.tls_key)
        return context

    async def _health(self, _: web.Request) -> web.StreamResponse:
        """The process answers."""
        return json_response({"status": "ok", "worker": self._config.number})

    async def _ready(self, _: web.Request) -> web.StreamResponse:
        """Orders can be placed and history read."""
        checks: dict[str, Any] = {
            "core": self.gateway.core.established,
            "history": self.gateway.history.connected,
        }
        ready = all(checks.values())
        return json_response({"status": "ready" if ready else "not ready", **checks}, status=200 if ready else 503)

    async def _openapi(self, _: web.Request) -> web.StreamResponse:
        return web.Response(body=self._document, content_type="application/json", charset="utf-8")

    async def _asyncapi(self, _: web.Request) -> web.StreamResponse:
        return json_response(asyncapi.document(self._url().replace("http", "ws", 1)))

    async def _metrics_text(self, _: web.Request) -> web.StreamResponse:
        for name, value in self.numbers().items():
            self.metrics.gauge(name, value)
        return web.Response(body=self.metrics.text(), content_type="text/plain", charset="utf-8")


def stream_limits(config: WebConfig) -> StreamLimits:
    """Return the limits of public streams."""
    return StreamLimits(
        connections_max=config.connections_max,
        attempts_per_5_minutes=config.stream_attempts,
        messages_per_s=config.stream_messages_per_s,
        streams_max=config.streams_max,
        queue_bytes=config.stream_queue_bytes,
    )
