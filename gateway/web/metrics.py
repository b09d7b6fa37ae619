"""Numbers for Prometheus, of one worker."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from gateway.web.api import Endpoint

BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0)


class _Seen:
    """Requests of one endpoint with one outcome."""

    __slots__ = ("buckets", "seconds")

    def __init__(self) -> None:
        self.buckets = [0] * (len(BUCKETS) + 1)
        self.seconds = 0.0


class Metrics:
    """Counting a request is one search among the bounds; families are made when somebody asks."""

    def __init__(self, worker: int) -> None:
        self._registry = CollectorRegistry()
        self._worker = str(worker)
        self._seen: dict[tuple[str, str, str, int], _Seen] = {}
        self._gauges: dict[str, Gauge] = {}
        self._registry.register(self)

    def request(self, endpoint: Endpoint, status: int, seconds: float, *, transport: str = "rest") -> None:
        place = (endpoint.method, endpoint.path, transport, status)
        seen = self._seen.get(place)
        if seen is None:
            seen = self._seen[place] = _Seen()
        seen.buckets[bisect_left(BUCKETS, seconds)] += 1
        seen.seconds += seconds

    def collect(self) -> Iterator[Metric]:
        """Yield what prometheus_client asks a collector for."""
        requests = CounterMetricFamily(
            "bullring_web_requests", "Requests answered", labels=("worker", "transport", "endpoint", "status")
        )
        latency = HistogramMetricFamily(
            "bullring_web_request_seconds", "Time from a request's head to its answer", labels=("worker", "endpoint")
        )
        sums: dict[str, tuple[list[int], float]] = {}
        for (method, path, transport, status), seen in self._seen.items():
            name = f"{method} {path}"
            requests.add_metric((self._worker, transport, name, str(status)), sum(seen.buckets))
            buckets, seconds = sums.get(name, ([0] * len(seen.buckets), 0.0))
            sums[name] = [a + b for a, b in zip(buckets, seen.buckets, strict=True)], seconds + seen.seconds
        for name, (buckets, seconds) in sums.items():
            bounds = [*(str(bound) for bound in BUCKETS), "+Inf"]
            latency.add_metric(
                (self._worker, name), list(zip(bounds, accumulate(buckets), strict=True)), sum_value=seconds
            )
        yield requests
        yield latency

    def gauge(self, name: str, value: float) -> None:
        if name not in self._gauges:
            self._gauges[name] = Gauge(
                f"bullring_web_{name}", name.replace("_", " "), ("worker",), registry=self._registry
            )
        self._gauges[name].labels(self._worker).set(value)

    def text(self) -> bytes:
        return generate_latest(self._registry)
