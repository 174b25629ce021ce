"""Traces to an OpenTelemetry collector: requests, the jobs that they send, and the SQL of both without its values."""

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import dramatiq
import structlog
import svcs
from flask import Flask
from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, Sampler, SamplingResult
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, TraceState
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import Attributes
from sqlalchemy import Engine

from app.job_context import AppContext
from app.logs import hide, hide_in_text
from config import Settings, project_version

# Nobody wants a trace of each question whether we are alive.
UNTRACED = "^https?://[^/]+/(livez|readyz|version|metrics|static/.*)([?]|$)"

propagator = TraceContextTextMapPropagator()


class Beginnings(Sampler):
    """A trace begins with a request or a job; a worker's looks into its queue are none."""

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """Keep or drop."""
        keep = kind in (SpanKind.SERVER, SpanKind.CONSUMER)
        return SamplingResult(Decision.RECORD_AND_SAMPLE if keep else Decision.DROP, attributes)

    def get_description(self) -> str:
        """For the SDK's own messages."""
        return type(self).__name__


class WithoutSecrets(BatchSpanProcessor):
    """Sends spans as they may be seen: addresses and the texts of errors may hold anything."""

    def on_end(self, span: ReadableSpan) -> None:
        """Queue a span to be sent."""
        events = [Event(event.name, _hidden(event.attributes), event.timestamp) for event in span.events]
        description = span.status.description
        super().on_end(
            ReadableSpan(
                name=span.name,
                context=span.context,
                parent=span.parent,
                resource=span.resource,
                attributes=_hidden(span.attributes),
                events=events,
                links=span.links,
                kind=span.kind,
                status=Status(span.status.status_code, hide_in_text(description) if description else None),
                start_time=span.start_time,
                end_time=span.end_time,
                instrumentation_scope=span.instrumentation_scope,
            )
        )


class JobTraces(dramatiq.Middleware):
    """A span for each attempt at a job, in the trace of who sent it: the trace's id goes along in the message."""

    def __init__(self, provider: TracerProvider) -> None:
        self.provider = provider
        self.tracer = provider.get_tracer(__name__)
        self.running = threading.local()

    def before_enqueue(self, _broker: dramatiq.Broker, message: dramatiq.Message[Any], _delay: int | None) -> None:
        """Say which trace sends it; a retry belongs to the one of the first attempt."""
        if "traceparent" not in message.options:
            propagator.inject(message.options)

    def before_process_message(self, _broker: dramatiq.Broker, message: dramatiq.MessageProxy) -> None:
        """Begin."""
        span = self.tracer.start_span(
            f"job {message.actor_name}",
            context=propagator.extract(message.options, Context()),
            kind=SpanKind.CONSUMER,
            attributes={
                "messaging.system": "dramatiq",
                "messaging.destination.name": message.queue_name,
                "messaging.message.id": message.message_id,
            },
        )
        self.running.span, self.running.token = span, context.attach(trace.set_span_in_context(span))
        _name_in_log(span)

    def after_process_message(
        self,
        _broker: dramatiq.Broker,
        message: dramatiq.MessageProxy,
        *,
        result: object = None,
        exception: BaseException | None = None,
    ) -> None:
        """End, well or not."""
        span = self.running.span
        if exception:
            span.record_exception(exception)
        if exception or message.failed:
            span.set_status(StatusCode.ERROR)
        context.detach(self.running.token)
        span.end()

    def after_skip_message(self, broker: dramatiq.Broker, message: dramatiq.MessageProxy) -> None:
        """End one that did not run."""
        self.after_process_message(broker, message)

    def after_worker_shutdown(self, _broker: dramatiq.Broker, _worker: dramatiq.Worker) -> None:
        """Send what is left: a worker's process ends without what Python does at the end of others."""
        self.provider.force_flush()


def start(app: Flask, settings: Settings) -> None:
    """Send traces.

    Raises:
        ValueError: the endpoint is not a URL of HTTP.
    """
    endpoint = settings.telemetry.otel_endpoint
    if urlsplit(endpoint).scheme not in ("http", "https"):
        raise ValueError("expected a URL like http://127.0.0.1:4318")
    resource = {
        "service.name": settings.app.slug,
        "service.version": project_version(settings.root),
        "deployment.environment.name": settings.environment,
    }
    provider = TracerProvider(sampler=ParentBased(Beginnings()), resource=Resource.create(resource))
    exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")
    with signals_blocked():
        provider.add_span_processor(WithoutSecrets(exporter))
    with app.app_context():
        engine, broker = svcs.flask.get(Engine), svcs.flask.get_abstract(dramatiq.Broker)
    # Its list of versions ends before ours.
    SQLAlchemyInstrumentor().instrument(engine=engine, tracer_provider=provider, skip_dep_check=True)
    instrumentor: Any = FlaskInstrumentor
    instrumentor.instrument_app(app, tracer_provider=provider, excluded_urls=UNTRACED, enable_commenter=False)
    broker.add_middleware(JobTraces(provider), after=AppContext)

    @app.before_request
    def name_in_log() -> None:
        _name_in_log(trace.get_current_span())

    def stop() -> None:
        instrumentor.uninstrument_app(app)
        SQLAlchemyInstrumentor().uninstrument()
        provider.shutdown()

    svcs.flask.register_value(app, TracerProvider, provider, on_registry_close=stop)


@contextmanager
def signals_blocked() -> Iterator[None]:
    """Let threads that start meanwhile get no signals.

    The kernel gives a signal to any thread that does not block it. While workers start, Dramatiq's main thread blocks
    those that end it; a thread that took one of them instead would end the process, and nobody would tell the workers.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _name_in_log(span: Span) -> None:
    """Put the trace's id into every line of the request or job."""
    if span.is_recording():
        structlog.contextvars.bind_contextvars(trace_id=trace.format_trace_id(span.get_span_context().trace_id))


def _hidden(attributes: Attributes) -> dict[str, Any]:
    hidden: dict[str, Any] = hide(dict(attributes or {}))
    return hidden
