"""Alerts: a quota that was crossed, a cost that reached an amount, unusual usage; told to people once per channel.

`consumer.py` takes `quota.crossed` and delivers (`deliver_alert.py`) by Slack and e-mail. `spend_consumer.py` lays
running costs over money thresholds (`watch_spend.py`). `anomaly_worker.py` judges each closed hour by the same tenant's
and meter's own past (`watch_anomalies.py`). Each claims an alert (`claim_alert.py`) together with the state it came
from, outgoing webhooks included, which `runtime.webhooks_out` sends. `domain/` decides and writes the messages, pure.
See docs/decisions/0017.
"""
