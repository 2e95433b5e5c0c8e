"""Counts and times in Prometheus's text form."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from tasks.kept_searches import Kept

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.15, 0.3, 0.6, 1.2, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """The measures of one service; two in a process share none."""

    kind = CONTENT_TYPE_LATEST
    """Content type of `text`."""

    def __init__(self, kept: Kept) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "cirflow_requests",
            "Requests by route and status",
            ("route", "status"),
            registry=self._registry,
        )
        self.seconds = Histogram(
            "cirflow_request_seconds",
            "Seconds of a request by route",
            ("route",),
            buckets=SECONDS,
            registry=self._registry,
        )
        for name, said, count in (
            ("made", "Values of queries that models made", lambda: kept.made),
            ("found", "Values of queries that were kept from before", lambda: kept.found),
        ):
            gauge = Gauge(f"cirflow_query_values_{name}", said, registry=self._registry)
            gauge.set_function(count)
        self.running = Gauge(
            "cirflow_requests_running", "Requests in progress", registry=self._registry
        )

    def text(self) -> bytes:
        """Everything measured."""
        return generate_latest(self._registry)
