"""
Traces by OpenTelemetry and errors by Sentry, each where its variable is set.

Without them nothing of either is imported. Neither is given a body, a header, a variable of our
code or a user's name: a password could be in any of them.
"""

from typing import Any

from django.conf import settings


def start() -> None:
    """Begin to send; in the web process alone, before Django loads its middleware."""
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

    names = {"service.name": "latchkey", "service.version": settings.VERSION}
    provider = TracerProvider(resource=Resource.create(names))
    exporter = OTLPSpanExporter(f"{settings.OTLP_ENDPOINT.rstrip('/')}/v1/traces")
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    DjangoInstrumentor().instrument(response_hook=name_request)
    PsycopgInstrumentor().instrument()
    RedisInstrumentor().instrument()


def name_request(span: Any, request: Any, response: Any) -> None:
    """Let a trace be found by the id that the client and the log have."""
    span.set_attribute("request.id", response.headers.get("X-Request-ID", ""))


def start_errors() -> None:
    import sentry_sdk

    sentry_sdk.init(
        settings.SENTRY_DSN,
        release=f"latchkey@{settings.VERSION}",
        send_default_pii=False,
        include_local_variables=False,
        max_request_body_size="never",
    )
