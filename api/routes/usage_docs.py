"""OpenAPI of the usage endpoints, written by hand because their bodies are read as bytes."""

from __future__ import annotations

from typing import Any

_CLOUD_EVENT: dict[str, Any] = {
    "type": "object",
    "title": "CloudEvent 1.0, structured JSON",
    "required": ["specversion", "id", "source", "type", "subject", "time", "data"],
    "properties": {
        "specversion": {"const": "1.0"},
        "id": {"type": "string", "minLength": 1, "maxLength": 256},
        "source": {"type": "string", "minLength": 1, "maxLength": 256},
        "type": {"type": "string", "description": "the meter's event type"},
        "subject": {"type": "string", "description": "tenant, or tenant/customer"},
        "time": {"type": "string", "format": "date-time"},
        "data": {"type": "object", "description": "quantities as numbers or decimal strings, and dimensions"},
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
_PLAIN: dict[str, Any] = {
    "type": "object",
    "title": "Plain form",
    "required": ["tenant_id", "metric_type", "timestamp"],
    "properties": {
        "tenant_id": {"type": "string"},
        "metric_type": {"type": "string", "description": "the meter's id"},
        "value": {"type": ["number", "string"], "description": "a decimal; absent or 1 for meters that count events"},
        "dimensions": {"type": "object"},
        "timestamp": {"type": "string", "format": "date-time"},
        "id": {"type": "string", "description": "else the Idempotency-Key, else one is made and returned"},
    },
}
_EITHER: dict[str, Any] = {"anyOf": [_CLOUD_EVENT, _PLAIN]}
_KEY_PARAMETER = {
    "in": "header",
    "name": "Idempotency-Key",
    "required": False,
    "schema": {"type": "string", "maxLength": 200},
    "description": "names a plain event that has no id; in a batch `key-index`",
}
_PROBLEMS: dict[str, Any] = {
    "400": {"description": "not JSON"},
    "413": {"description": "too large"},
    "415": {"description": "another media type or encoding"},
    "422": {"description": "read and refused"},
    "503": {"description": "the broker did not confirm: nothing is promised, the same ids are safe to send again"},
}


def _docs(body: dict[str, Any], accepted: str) -> dict[str, Any]:
    return {
        "parameters": [_KEY_PARAMETER],
        "requestBody": {"required": True, "content": body},
        "responses": {"202": {"description": accepted}, **_PROBLEMS},
    }


EVENT_DOCS = _docs(
    {"application/cloudevents+json": {"schema": _CLOUD_EVENT}, "application/json": {"schema": _EITHER}},
    "confirmed by the broker: `{id, status: accepted}`",
)
BATCH_DOCS = _docs(
    {
        "application/cloudevents-batch+json": {"schema": {"type": "array", "items": _CLOUD_EVENT}},
        "application/json": {"schema": {"type": "array", "items": _EITHER}},
    },
    "the accepted ones are confirmed by the broker: `{results: [{index, id, status, code?, reason?}]}`",
)
