"""Numbers for Prometheus, of one worker."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from gateway.web.api import Endpoint

BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0)


class Metrics:
    def __init__(self, worker: int) -> None:
        self._registry = CollectorRegistry()
        self._worker = str(worker)
        self._requests = Counter(
            "bullring_web_requests", "Requests answered", ("worker", "transport", "endpoint", "status"),
            registry=self._registry,
        )  # fmt: skip
        self._latency = Histogram(
            "bullring_web_request_seconds", "Time from a request's head to its answer", ("worker", "endpoint"),
            buckets=BUCKETS, registry=self._registry,
        )  # fmt: skip
        self._children: dict[tuple[str, str, str, int], tuple[Counter, Histogram]] = {}
        self._gauges: dict[str, Gauge] = {}

    def request(self, endpoint: Endpoint, status: int, seconds: float, *, transport: str = "rest") -> None:
        place = (endpoint.method, endpoint.path, transport, status)
        known = self._children.get(place)
        if known is None:
            name = f"{endpoint.method} {endpoint.path}"
            known = self._children[place] = (
                self._requests.labels(self._worker, transport, name, str(status)),
                self._latency.labels(self._worker, name),
            )
        known[0].inc()
        known[1].observe(seconds)

    def gauge(self, name: str, value: float) -> None:
        if name not in self._gauges:
            self._gauges[name] = Gauge(
                f"bullring_web_{name}", name.replace("_", " "), ("worker",), registry=self._registry
            )
        self._gauges[name].labels(self._worker).set(value)

    def text(self) -> bytes:
        return generate_latest(self._registry)
