"""What the server counts, for Prometheus: requests, refusals, decisions, seconds, and how full it is."""

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from allweather.serve.access import App, Message, Receive, Scope, Send, path_of

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """Counters of one server; two servers in one process do not share them.

    Args:
        waiting, streams, visitors: say how many there are when they are asked.
    """

    content_type = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(
        self, waiting: Callable[[], float], streams: Callable[[], float], visitors: Callable[[], float]
    ) -> None:
        registry = self._registry = CollectorRegistry()
        self.answers = Counter(
            "allweather_requests", "Answers of /v1/predict by status.", ["status"], registry=registry
        )
        self.refused = Counter("allweather_uploads_refused", "Uploads refused.", ["reason"], registry=registry)
        self.decisions = Counter(
            "allweather_decisions", "What the guard decided on pictures.", ["decision"], registry=registry
        )
        self.seconds = Histogram(
            "allweather_predict_seconds", "From a request's arrival to its answer.", buckets=SECONDS, registry=registry
        )
        for name, help, count in (
            ("allweather_requests_running", "Requests that run or wait.", waiting),
            ("allweather_streams", "Streams with a session.", streams),
            ("allweather_visitors", "Visitors of the page.", visitors),
        ):
            Gauge(name, help, registry=registry).set_function(count)

    def text(self) -> bytes:
        """All of them, as Prometheus reads it."""
        return generate_latest(self._registry)


@dataclass(frozen=True)
class Counted:
    """An ASGI application whose answers of /v1/predict are counted, whoever gives them."""

    app: App
    metrics: Metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = perf_counter()

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.metrics.answers.labels(str(message["status"])).inc()
                self.metrics.seconds.observe(perf_counter() - started)
            await send(message)

        asked = scope["type"] == "http" and path_of(scope) == "/v1/predict"
        await self.app(scope, receive, counted if asked else send)
