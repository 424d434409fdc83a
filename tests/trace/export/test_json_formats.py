"""OTLP read by the protocol's own classes (protobuf's, and those for JSON), OCSF by the schema it publishes and by models of it."""

import base64
import json
from collections.abc import Callable, Mapping

import pytest
from google.protobuf.json_format import ParseDict
from jsonschema import Draft202012Validator
from ocsf_json_schema.embedded import OcsfJsonSchemaEmbedded
from ocsf_json_schema.loader import get_ocsf_schema
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto_json.collector.logs.v1 import logs_service
from opentelemetry.proto_json.collector.trace.v1 import trace_service
from py_ocsf_models.events.findings.detection_finding import DetectionFinding

from cra_mcp.trace.event import Event
from cra_mcp.trace.export import ocsf, otlp
from cra_mcp.trace.export.format import format_of
from cra_mcp.trace.export.otlp_spans import Spans
from cra_mcp.trace.export.record import Record
from tests.trace.export.conftest import EVIL, identifier

_IDS = {"traceId": 16, "spanId": 8, "parentSpanId": 8}


def in_protobuf_json(value: object) -> object:
    """OTLP/JSON writes ids in hexadecimal, where the JSON form of protobuf has Base64; the rest is the same."""
    if isinstance(value, list):
        return [in_protobuf_json(item) for item in value]
    if not isinstance(value, dict):
        return value
    result = {}
    for key, member in value.items():
        if key in _IDS:
            data = bytes.fromhex(member)
            assert len(data) == _IDS[key]
            assert any(data)
            result[key] = base64.b64encode(data).decode()
        else:
            result[key] = in_protobuf_json(member)
    return result


def in_otlp_json(data: bytes, request: type) -> None:
    """Read by OpenTelemetry's own classes for OTLP/JSON, which must write again what they read, but for default values."""
    assert without_defaults(request.from_json(data).to_dict()) == without_defaults(json.loads(data))


def without_defaults(value: object) -> object:
    if isinstance(value, list):
        return [without_defaults(each) for each in value]
    if isinstance(value, dict):
        return {key: without_defaults(each) for key, each in value.items() if each not in ([], 0, "")}
    return value


def read_logs(data: bytes) -> ExportLogsServiceRequest:
    in_otlp_json(data, logs_service.ExportLogsServiceRequest)
    return ParseDict(in_protobuf_json(json.loads(data)), ExportLogsServiceRequest())


def read_spans(data: bytes) -> ExportTraceServiceRequest:
    in_otlp_json(data, trace_service.ExportTraceServiceRequest)
    return ParseDict(in_protobuf_json(json.loads(data)), ExportTraceServiceRequest())


def plain(value: object) -> object:
    """An ``AnyValue`` as a plain value."""
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    inner = getattr(value, kind)
    if kind == "array_value":
        return [plain(each) for each in inner.values]
    if kind == "kvlist_value":
        return {each.key: plain(each.value) for each in inner.values}
    return inner


def test_logs_are_read_by_the_protocols_own_classes(records: list[Record], parsed: list[Event]) -> None:
    request = read_logs(otlp.request_of_logs(records))
    (resource_logs,) = request.resource_logs
    assert {each.key: plain(each.value) for each in resource_logs.resource.attributes}["service.name"] == "cra-mcp"
    (scope_logs,) = resource_logs.scope_logs
    for log, event, record in zip(scope_logs.log_records, parsed, records, strict=True):
        assert plain(log.body) == event.payload
        assert (log.event_name, log.time_unix_nano) == (event.event_type, record.time_ns)
        assert log.trace_id.hex() == event.trace_id.replace("-", "")
        said = {each.key: plain(each.value) for each in log.attributes}
        assert (said["cra.event.hash"], said["cra.sequence"]) == (event.event_hash, event.sequence)
        assert said["cra.agent.id"] == EVIL
        assert 1 <= log.severity_number <= 24


def test_values_no_protocol_class_can_hold_are_made_to_fit() -> None:
    deep: object = 1
    for _ in range(60):
        deep = [deep]
    assert "…" in json.dumps(otlp.any_value(deep), ensure_ascii=False)
    assert otlp.any_value(2**63) == {"doubleValue": 2.0**63}
    assert otlp.any_value(-(2**53)) == {"intValue": str(-(2**53))}
    assert otlp.any_value(b"x") == {"stringValue": "b'x'"}


def test_spans_are_of_the_session_and_of_each_call(records: list[Record]) -> None:
    form = format_of("otlp-spans")
    pieces = [piece for record in records for piece in form.feed(record)]
    waiting = list(form.finish())
    requests = [read_spans(piece) for piece in (*pieces, *waiting)]
    spans = [span for request in requests for each in request.resource_spans for span in each.scope_spans[0].spans]
    by_name: dict[str, list] = {}
    for span in spans:
        by_name.setdefault(span.name, []).append(span)
    (session,) = by_name[f"invoke_agent {EVIL}"]
    assert session.parent_span_id == b""
    assert (session.start_time_unix_nano, session.end_time_unix_nano) == (records[0].time_ns, records[-1].time_ns)
    read, failed = by_name["execute_tool do.read"]
    assert read.events[0].name == "context.redacted"
    assert read.parent_span_id == session.span_id
    assert {each.key: plain(each.value) for each in read.attributes}["gen_ai.tool.name"] == "do.read"
    assert (read.status.code, failed.status.code) == (1, 2)
    assert {each.key: plain(each.value) for each in failed.attributes}["error.type"] == "timeout"
    assert read.links[0].trace_id == bytes.fromhex("a" * 32)
    (denied,) = by_name["execute_tool do.delete"]
    assert denied.status.code == 2
    assert len(waiting) == 2, "calls that have not ended are given out when the export ends"
    assert len({span.trace_id for span in spans}) == 1


@pytest.mark.parametrize(
    "otel",
    [None, "x", {}, {"trace_id": "a" * 32}, *({"trace_id": each * 32, "span_id": "b" * 16} for each in "0Az")],
)
def test_a_link_that_is_none_is_left_out(records: list[Record], otel: object) -> None:
    spans = Spans()
    object.__setattr__(records[3].event, "payload", {**records[3].event.payload, "otel": otel})
    (span,) = [span for record in records[3:7] for span in spans.spans(record)]
    assert span["links"] == []


def test_what_waits_is_bounded(records: list[Record], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cra_mcp.trace.export.otlp_spans._MAX_OPEN", 2)
    monkeypatch.setattr("cra_mcp.trace.export.otlp_spans._MAX_EVENTS", 2)
    spans = Spans()
    given = [span for record in records for span in spans.spans(record)]
    assert any(span["droppedEventsCount"] for span in given)
    assert len(list(spans.rest())) <= 2


@pytest.fixture(scope="module")
def of_class() -> Callable[[dict], Draft202012Validator]:
    """By the schema that OCSF publishes: nothing but its attributes, of its types, with values of its enumerations."""
    schemas = OcsfJsonSchemaEmbedded(get_ocsf_schema("1.4.0"))
    made: dict[str, Draft202012Validator] = {}

    def validator(event: dict) -> Draft202012Validator:
        name = schemas.lookup_class_name_from_uid(event["class_uid"])
        if name not in made:
            made[name] = Draft202012Validator(schemas.get_class_schema(name, event["metadata"].get("profiles", [])))
        return made[name]

    return validator


def test_ocsf_events_are_what_the_published_schema_says(
    records: list[Record], parsed: list[Event], of_class: Callable[[dict], Draft202012Validator]
) -> None:
    classes = set()
    for record, event in zip(records, parsed, strict=True):
        made = json.loads(ocsf.line(record))
        assert [error.message for error in of_class(made).iter_errors(made)] == []
        classes.add(made["class_uid"])
        assert made["type_uid"] == made["class_uid"] * 100 + made["activity_id"]
        assert made["time"] == record.time_ns // 1_000_000
        assert (made["metadata"]["version"], made["metadata"]["uid"]) == ("1.4.0", event.event_id)
        assert made["unmapped"]["payload"] == event.payload
        if made["class_uid"] == 6003:
            assert ("action_id" in made) == ("disposition_id" in made)
        elif made["class_uid"] == 2004:
            DetectionFinding.model_validate(made)  # by models of another maker too
    assert classes == {6003, 6002, 2004, 0}


@pytest.mark.parametrize(
    "change", [{"severity_id": 7}, {"invented": 1}, {"time": "now"}, {"metadata": {"version": "1.4.0"}}]
)
def test_the_published_schema_notices_what_is_wrong(
    records: list[Record], of_class: Callable[[dict], Draft202012Validator], change: dict
) -> None:
    for record in records:
        made = json.loads(ocsf.line(record))
        assert not of_class(made).is_valid({**made, **change})


def test_ocsf_says_what_was_decided_and_by_which_policy(records: list[Record]) -> None:
    made: dict[str, Mapping[str, object]] = {}
    for record in records:
        made.setdefault(record.event.event_type, ocsf.event_of(record))
    denied = made["action.denied"]
    assert (denied["action_id"], denied["disposition_id"], denied["status_id"]) == (2, 2, 2)
    assert denied["authorizations"] == [{"decision": "deny", "policy": {"uid": "no", "name": "no", "desc": EVIL}}]
    assert (made["action.executed"]["action_id"], made["action.executed"]["status_id"]) == (1, 1)
    assert made["approval.rejected"]["disposition_id"] == 25
    assert made["action.failed"]["status_code"] == "timeout"
    assert "action_id" not in made["action.requested"]
    assert made["session.started"]["app"]["uid"] == identifier(100)
    assert made["atlas.loaded"]["app"]["version"] == "1.0.0"
