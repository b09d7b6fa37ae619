"""Requests are counted by outcome and their times by endpoint, in the form Prometheus reads."""

from prometheus_client.parser import text_string_to_metric_families

from gateway.web.cancels import CANCEL_ENDPOINT
from gateway.web.metrics import BUCKETS, Metrics
from gateway.web.trading import ORDER_ENDPOINT


def test_requests_are_counted_and_timed() -> None:
    metrics = Metrics(3)
    for seconds in (0.0004, 0.0005, 0.3, 99.0):
        metrics.request(ORDER_ENDPOINT, 200, seconds)
    metrics.request(ORDER_ENDPOINT, 400, 0.3, transport="socket")
    metrics.request(CANCEL_ENDPOINT, 200, 0.01)
    metrics.gauge("express_orders", 4)

    families = {each.name: each for each in text_string_to_metric_families(metrics.text().decode())}

    names = ("worker", "transport", "endpoint", "status")
    rows = families["bullring_web_requests"].samples
    requests = {tuple(row.labels[name] for name in names): row.value for row in rows}
    place, cancel = "POST /api/v3/order", "DELETE /api/v3/order"
    assert requests == {
        ("3", "rest", place, "200"): 4, ("3", "socket", place, "400"): 1, ("3", "rest", cancel, "200"): 1,
    }  # fmt: skip
    rows = [row for row in families["bullring_web_request_seconds"].samples if row.labels["endpoint"] == place]
    below = {float(row.labels["le"]): row.value for row in rows if row.name.endswith("_bucket")}
    assert [below[bound] for bound in (BUCKETS[0], 0.25, 0.5, 10.0, float("inf"))] == [2, 2, 4, 4, 5]
    assert list(below.values()) == sorted(below.values())
    [total] = [row.value for row in rows if row.name.endswith("_sum")]
    assert round(total, 4) == round(0.0004 + 0.0005 + 0.3 + 99.0 + 0.3, 4)
    assert families["bullring_web_express_orders"].samples[0].value == 4
