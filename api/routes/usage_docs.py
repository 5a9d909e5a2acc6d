"""OpenAPI of the usage endpoints, written by hand because their bodies are read as bytes. One example per form."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]
_NAME: Schema = {"type": "string", "minLength": 1, "maxLength": 256}
_TIME: Schema = {"type": "string", "format": "date-time", "description": "RFC 3339 with a zone"}
_QUANTITY: Schema = {
    "type": ["number", "string"],
    "description": "exact: a number or a decimal text, not negative, below 10^15, at most 12 decimal places",
}
# What every form but the CloudEvent may carry beside its own fields.
_COMMON: Schema = {
    "tenant_id": {"type": "string", "description": "tenant, or tenant/customer"},
    "id": {**_NAME, "description": "else the Idempotency-Key, else one is made and returned"},
    "source": {**_NAME, "description": "the producer's name for itself; `api` if left out"},
    "dimensions": {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean", "null"]}},
}


def _form(title: str, required: list[str], properties: Schema, example: Schema, description: str = "") -> Schema:
    schema: Schema = {
        "type": "object",
        "title": title,
        "required": required,
        "properties": properties,
        "additionalProperties": False,
        "examples": [example],
    }
    return {**schema, "description": description} if description else schema


CLOUD_EVENT: Schema = {
    "type": "object",
    "title": "CloudEvent 1.0, structured JSON",
    "required": ["specversion", "id", "source", "type", "subject", "time", "data"],
    "properties": {
        "specversion": {"const": "1.0"},
        "id": _NAME,
        "source": _NAME,
        "type": {"type": "string", "description": "the meter's event type, or `meterbook.usage.void` and the like"},
        "subject": {"type": "string", "description": "tenant, or tenant/customer"},
        "time": _TIME,
        "data": {"type": "object", "description": "quantities as numbers or decimal texts, and dimensions"},
    },
    "examples": [
        {
            "specversion": "1.0",
            "id": "req-1",
            "source": "gateway",
            "type": "api.request",
            "subject": "acme",
            "time": "2026-10-05T12:00:00Z",
            "data": {"requests": 3, "endpoint": "/v1/search"},
        }
    ],
}
PLAIN = _form(
    "Plain form",
    ["tenant_id", "metric_type", "timestamp"],
    {
        **_COMMON,
        "metric_type": {"type": "string", "description": "the meter's id"},
        "value": {
            "type": ["number", "string", "boolean"],
            "description": "absent or 1 for meters that count events, a text for meters that count distinct values",
        },
        "timestamp": _TIME,
    },
    {
        "tenant_id": "acme",
        "metric_type": "api_requests",
        "value": "2.5",
        "dimensions": {"endpoint": "/v1/search", "method": "GET"},
        "timestamp": "2026-10-05T12:00:00Z",
    },
)
BUNDLE = _form(
    "Bundle form",
    ["tenant_id", "timestamp"],
    {
        **_COMMON,
        "timestamp": _TIME,
        "cpu_seconds": _QUANTITY,
        "memory_gb_hours": _QUANTITY,
        "storage_gb_hours": _QUANTITY,
        "network_gb": _QUANTITY,
        "executions": _QUANTITY,
    },
    {
        "tenant_id": "acme",
        "timestamp": "2026-10-05T12:00:00Z",
        "id": "node-7-1791201600",
        "cpu_seconds": 812.25,
        "memory_gb_hours": "0.5",
        "storage_gb_hours": 40,
        "network_gb": "1.75",
        "executions": 12,
    },
    "At least one quantity; each becomes an event of its own, `id:quantity`. Which there are is configuration.",
)
SERVICE = _form(
    "Service form",
    ["tenant_id", "service", "usage_type", "quantity", "timestamp"],
    {
        **_COMMON,
        "service": {"type": "string"},
        "usage_type": {"type": "string"},
        "quantity": _QUANTITY,
        "timestamp": {
            "type": ["number", "string"],
            "description": "Unix seconds; fractions are read exactly and cut at the microsecond",
        },
    },
    {
        "tenant_id": "acme",
        "service": "marketplace",
        "usage_type": "upload",
        "quantity": 3,
        "timestamp": 1791201600.25,
    },
)
PERIOD = _form(
    "Period form",
    ["tenant_id", "resource_type", "quantity", "unit", "period_start", "period_end", "source"],
    {
        **_COMMON,
        "resource_type": {"type": "string"},
        "quantity": _QUANTITY,
        "unit": {"type": "string", "description": "one that is configured for the resource type; never guessed"},
        "period_start": _TIME,
        "period_end": _TIME,
    },
    {
        "tenant_id": "acme",
        "resource_type": "cpu",
        "quantity": "1.25",
        "unit": "vCPU-hour",
        "period_start": "2026-10-05T11:00:00Z",
        "period_end": "2026-10-05T12:00:00Z",
        "source": "monitor-1",
    },
    "Usage of [period_start, period_end), counted one microsecond before its end.",
)
_CORRECTS: Schema = {
    "type": "object",
    "required": ["source", "id"],
    "properties": {"source": _NAME, "id": _NAME},
    "description": "the event, by the names under which it was accepted",
}
_REASON: Schema = {"type": "string", "maxLength": 500}
_CONTENT: Schema = {"type": {"type": "string"}, "time": _TIME, "data": {"type": "object"}}
_FRAME: Schema = {name: _COMMON[name] for name in ("tenant_id", "id", "source")} | {"reason": _REASON}
_TARGET = {"source": "gateway", "id": "req-1"}
VOID = _form(
    "Void",
    ["tenant_id", "corrects"],
    {**_FRAME, "timestamp": _TIME, "corrects": _CORRECTS},
    {"tenant_id": "acme", "corrects": _TARGET, "reason": "sent by a test"},
)
AMEND = _form(
    "Amend",
    ["tenant_id", "corrects", "event"],
    {
        **_FRAME,
        "timestamp": _TIME,
        "corrects": _CORRECTS,
        "event": {"type": "object", "required": ["type", "time", "data"], "properties": _CONTENT},
    },
    {
        "tenant_id": "acme",
        "corrects": _TARGET,
        "event": {"type": "api.request", "time": "2026-10-05T12:00:00Z", "data": {"requests": 2}},
        "reason": "counted one too many",
    },
)
BACKFILL = _form(
    "Backfill",
    ["tenant_id", "start", "end", "events"],
    {
        **_FRAME,
        "timestamp": _TIME,
        "start": _TIME,
        "end": _TIME,
        "events": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["id", "type", "time", "data"],
                "properties": {"id": _NAME, **_CONTENT},
            },
        },
    },
    {
        "tenant_id": "acme",
        "start": "2026-07-01T00:00:00Z",
        "end": "2026-08-01T00:00:00Z",
        "events": [
            {"id": "july-1", "type": "api.request", "time": "2026-07-03T08:00:00Z", "data": {"requests": 41}},
        ],
        "reason": "a gateway's log was found",
    },
    "Events of a closed past range, however old.",
)
FORMS = (CLOUD_EVENT, PLAIN, BUNDLE, SERVICE, PERIOD)
_ANY_FORM: Schema = {"oneOf": list(FORMS)}
_KEY_PARAMETER: Schema = {
    "in": "header",
    "name": "Idempotency-Key",
    "required": False,
    "schema": {"type": "string", "maxLength": 200},
    "description": "names usage that has no id; in a batch `key-index`",
}
_BINARY_PARAMETERS: list[Schema] = [
    {
        "in": "header",
        "name": f"ce-{name}",
        "required": False,
        "schema": {"type": "string"},
        "description": "binary mode: the body is `data` alone; values are percent-encoded",
    }
    for name in ("specversion", "id", "source", "type", "subject", "time")
]
_ENCODING: Schema = {
    "in": "header",
    "name": "Content-Encoding",
    "required": False,
    "schema": {"enum": ["gzip", "zstd", "identity"]},
    "description": "the unpacked body is bounded like any other",
}
_PROBLEM: Schema = {
    "application/problem+json": {
        "schema": {
            "type": "object",
            "required": ["type", "title", "status", "detail", "instance", "code"],
            "properties": {
                "type": {"type": "string"},
                "title": {"type": "string"},
                "status": {"type": "integer"},
                "detail": {"type": "string"},
                "instance": {"type": "string"},
                "code": {"type": "string", "description": "stable, for programs"},
                "errors": {
                    "type": "array",
                    "description": "every fault that was found",
                    "items": {
                        "type": "object",
                        "properties": {name: {"type": "string"} for name in ("pointer", "code", "detail")},
                    },
                },
            },
        }
    }
}
_PROBLEMS: Schema = {
    status: {"description": description, "content": _PROBLEM}
    for status, description in {
        "400": "cannot be read: not JSON, or not packed as it says",
        "413": "too large, as sent or unpacked",
        "415": "another media type or encoding",
        "422": "read and refused",
        "503": "the broker did not confirm: nothing is promised, the same ids are safe to send again",
    }.items()
}
_ACCEPTED: Schema = {
    "type": "object",
    "required": ["id", "status"],
    "properties": {
        "id": {"type": "string"},
        "status": {"const": "accepted"},
        "form": {"enum": ["plain", "bundle", "service", "period"], "description": "absent for a CloudEvent"},
        "events": {"type": "array", "items": CLOUD_EVENT, "description": "the CloudEvents that the form became"},
    },
}
_RESULTS: Schema = {
    "type": "object",
    "required": ["results"],
    "properties": {
        "results": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["index", "id", "status"],
                "properties": {
                    **_ACCEPTED["properties"],
                    "index": {"type": "integer"},
                    "id": {"type": ["string", "null"]},
                    "status": {"enum": ["accepted", "refused"]},
                    "code": {"type": "string"},
                    "reason": {"type": "string"},
                    "pointer": {"type": "string"},
                    "errors": {"type": "array", "description": "where there is more than one fault"},
                },
            },
        }
    },
}


def _docs(body: Schema, answer: Schema, accepted: str, parameters: list[Schema]) -> Schema:
    return {
        "parameters": [_KEY_PARAMETER, _ENCODING, *parameters],
        "requestBody": {"required": True, "content": body},
        "responses": {
            "202": {"description": accepted, "content": {"application/json": {"schema": answer}}},
            **_PROBLEMS,
        },
    }


def _correction_docs(schema: Schema) -> Schema:
    accepted = "confirmed by the broker; whether the event is there to correct is decided by the stream"
    return _docs({"application/json": {"schema": schema}}, _ACCEPTED, accepted, [])


EVENT_DOCS = _docs(
    {"application/cloudevents+json": {"schema": CLOUD_EVENT}, "application/json": {"schema": _ANY_FORM}},
    _ACCEPTED,
    "confirmed by the broker",
    _BINARY_PARAMETERS,
)
BATCH_DOCS = _docs(
    {
        "application/cloudevents-batch+json": {"schema": {"type": "array", "items": CLOUD_EVENT}},
        "application/json": {"schema": {"type": "array", "items": _ANY_FORM}},
    },
    _RESULTS,
    "the accepted ones are confirmed by the broker",
    [],
)
VOID_DOCS, AMEND_DOCS, BACKFILL_DOCS = _correction_docs(VOID), _correction_docs(AMEND), _correction_docs(BACKFILL)
