"""
OpenTelemetry traces and Sentry errors, each enabled by its environment variable.

Disabled libraries are not imported. Bodies, headers, local variables and user names are not sent,
because any of them may contain a password.
"""

from typing import Any

from django.conf import settings


def start() -> None:
    """Start the exporters. Call this in the web process, before Django loads its middleware."""
    if settings.OTLP_ENDPOINT:
        start_traces()
    if settings.SENTRY_DSN:
        start_errors()


def start_traces() -> None:
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.instrumentation.django import DjangoInstrumentor
    from opentelemetry.instrumentation.psycopg import PsycopgInstrumentor
    from opentelemetry.instrumentation.redis import RedisInstrumentor
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    names = {"service.name": settings.SERVICE_NAME, "service.version": settings.VERSION}
    provider = TracerProvider(resource=Resource.create(names))
    exporter = OTLPSpanExporter(f"{settings.OTLP_ENDPOINT.rstrip('/')}/v1/traces")
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    DjangoInstrumentor().instrument(response_hook=name_request)
    PsycopgInstrumentor().instrument()
    RedisInstrumentor().instrument()


def name_request(span: Any, request: Any, response: Any) -> None:
    """Add the request id of the response and the log to the span."""
    span.set_attribute("request.id", response.headers.get("X-Request-ID", ""))


def start_errors() -> None:
    import sentry_sdk

    sentry_sdk.init(
        settings.SENTRY_DSN,
        release=f"{settings.SERVICE_NAME}@{settings.VERSION}",
        send_default_pii=False,
        include_local_variables=False,
        max_request_body_size="never",
    )
