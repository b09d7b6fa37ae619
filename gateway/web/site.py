"""The pages' files: trading at `/`, the operator's at `/operator`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import web

FOLDER = Path(__file__).with_name("pages")
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", "": "text/plain"}
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self' ws: wss:;"
        " img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


class Pages:
    """Static files, read once."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[bytes, str, str]] = {}
        for path in sorted(FOLDER.rglob("*")):
            if path.is_file():
                body = path.read_bytes()
                tag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
                self._files[path.relative_to(FOLDER).as_posix()] = (body, TYPES[path.suffix], tag)

    def routes(self) -> list[web.RouteDef]:
        """Return what to mount."""
        named = {"/": "index.html", "/operator": "operator.html"}
        fixed = [web.get(path, self._named(name)) for path, name in named.items()]
        return [*fixed, web.get("/pages/{name:.+}", self._any)]

    def _named(self, name: str) -> Callable[[web.Request], Any]:
        async def handle(request: web.Request) -> web.StreamResponse:
            return self._serve(request, name)

        return handle

    async def _any(self, request: web.Request) -> web.StreamResponse:
        return self._serve(request, request.match_info["name"])

    def _serve(self, request: web.Request, name: str) -> web.StreamResponse:
        if name not in self._files:
            raise web.HTTPNotFound
        body, kind, tag = self._files[name]
        headers = {**HEADERS, "ETag": tag}
        if request.headers.get("If-None-Match") == tag:
            return web.Response(status=304, headers=headers)
        return web.Response(body=body, content_type=kind, charset="utf-8", headers=headers)
