"""Counts and times in Prometheus's text form."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.15, 0.3, 0.6, 1.2, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """The measures of one service; two in a process share none."""

    kind = CONTENT_TYPE_LATEST
    """Content type of `text`."""

    def __init__(self) -> None:
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
        self.encodings = Counter(
            "cirflow_query_encodings",
            "Queries whose features were encoded, or found from before",
            ("found",),
            registry=self._registry,
        )
        self.running = Gauge(
            "cirflow_requests_running", "Requests in progress", registry=self._registry
        )

    def text(self) -> bytes:
        """Everything measured."""
        return generate_latest(self._registry)
