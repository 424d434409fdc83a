"""``cra-mcp`` in a process that has an OpenTelemetry SDK: ``python with_otel_sdk.py PORT serve ...`` exports to that port."""

import sys

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from cra_mcp.faces.launch import main

port = sys.argv.pop(1)
provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"http://127.0.0.1:{port}/v1/traces")))
trace.set_tracer_provider(provider)
try:
    main()
finally:
    provider.shutdown()
