"""The forms in which usage may come in, each one becoming CloudEvents at the edge. Pure; one file per form.

| form | recognised by | becomes |
|---|---|---|
| CloudEvent, structured | `specversion`, `type`, `subject`, `time`, `data` | itself, byte for byte |
| CloudEvent, binary (`binary.py`) | `ce-` headers (HTTP), `ce_` headers (Kafka) | the same event, structured |
| plain (`plain.py`) | `metric_type`, `value` | one event of the meter's type |
| bundle (`bundle.py`) | its quantities (`cpu_seconds`, `executions`, ...) | one event per quantity, `id:quantity` |
| service (`service_usage.py`) | `service`, `usage_type` | one event |
| period (`period.py`) | `resource_type`, `unit`, `period_start`, `period_end` | one event, at the period's end |

`recognise.py` tells them apart by the names of their fields alone, `fields.py` reads a form's fields and notes every
fault, `mapping.py` holds what a quantity is called in an event: configuration (`catalogues/input_forms.yaml`), never
code. Every form names its tenant in `tenant_id`; an unknown field is refused, because a quantity behind a misspelt
name would be lost silently. What comes out is judged by `core.usage_event` like any other event.
"""
