"""Traces by OpenTelemetry: a span for each request, below the one that the client names in `traceparent`, and below it
one for each thing that the request causes (spans.py).

Set up by OpenTelemetry's own variables (`OTEL_*`) and by nothing else, and off unless one of them names where spans go:
OTEL_TRACES_EXPORTER (otlp or console), or an OTEL_EXPORTER_OTLP_ENDPOINT. Needs the extra `tracing`, imported only
then (otel.py). Spans carry paths and names, no query (it may hold a signed state) and no header but User-Agent.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from starlette.types import ASGIApp

from registry.config import ConfigError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_HTTP = "http/protobuf"


def tracing(environ: Mapping[str, str]) -> Callable[[ASGIApp], ASGIApp] | None:
    """What to wrap the application with; None: no traces are asked for.

    Raises ConfigError for an exporter that is not there.
    """
    exporter = _exporter_name(environ)
    if exporter == "none":
        return None
    try:
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        from registry.watching.otel import Traced

        made = _exporter(exporter, environ)
    except ImportError as exc:
        raise ConfigError(
            "OTEL_TRACES_EXPORTER", f"needs packages that are missing: pip install 'moorage[tracing]' ({exc})"
        ) from exc

    def wrap(app: ASGIApp) -> ASGIApp:
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(made))
        return Traced(app, provider)

    return wrap


def _exporter_name(environ: Mapping[str, str]) -> str:
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return "none"
    default = "otlp" if any(environ.get(name) for name in _ENDPOINTS) else "none"
    return environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() or default


def _exporter(name: str, environ: Mapping[str, str]) -> "SpanExporter":
    if name == "console":
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        return ConsoleSpanExporter()
    if name != "otlp":
        raise ConfigError("OTEL_TRACES_EXPORTER", f"there is no exporter {name!r}: otlp, console or none")
    for variable in _PROTOCOLS:
        if environ.get(variable, _HTTP) != _HTTP:
            raise ConfigError(variable, f"only {_HTTP} is spoken; collectors take it on port 4318")
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()
