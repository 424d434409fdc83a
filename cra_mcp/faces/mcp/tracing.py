"""OpenTelemetry: what a governed call adds to the span of its request.

The SDK opens one span a message and continues the W3C context in its ``_meta``. With no OpenTelemetry SDK in the process all of
this is a no-op, but the trace id that a caller sent is still kept. Source: specs/observability.md, "OpenTelemetry".
"""

from collections.abc import Mapping

from mcp_types import RequestId
from opentelemetry import trace

from cra_mcp.faces.mcp.request_ids import RequestKey
from cra_mcp.gate.call import ExecutionOutcome


def span_ids() -> Mapping[str, str] | None:
    """Trace and span id of the request under way, in hex; None if it belongs to no trace."""
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return None
    return {"trace_id": trace.format_trace_id(context.trace_id), "span_id": trace.format_span_id(context.span_id)}


def name_request(request_id: RequestId | None) -> None:
    """Give the span the id that the client gave its request, not our key for it."""
    if isinstance(request_id, RequestKey):
        trace.get_current_span().set_attribute("jsonrpc.request.id", str(request_id.wire))


def describe(outcome: ExecutionOutcome) -> None:
    """Say on the span what became of the call, and where it stands in the trace of its session."""
    span = trace.get_current_span()
    if not span.is_recording():
        return
    attributes: dict[str, str | int] = {
        "cra.execution.id": outcome.execution_id,
        "cra.status": outcome.status,
    }
    if outcome.receipt is not None:
        attributes["cra.session.id"] = outcome.receipt.session_id
        attributes["cra.sequence"] = outcome.receipt.sequence
        attributes["cra.event.hash"] = outcome.receipt.event_hash
    fault = outcome.fault
    if fault is None or fault.code != "unknown_action":
        # What must look unknown to the caller is not named to whoever reads its spans.
        attributes["cra.action.id"] = outcome.action_id
    if fault is not None:
        attributes["cra.error.code"] = fault.code
        policy_id = fault.details.get("policy_id")
        if isinstance(policy_id, str):
            attributes["cra.policy.id"] = policy_id
    span.set_attributes(attributes)
