"""Alerts: a quota that was crossed is told to people once per channel, however often it is reported.

`consumer.py` takes `quota.crossed`, claims one delivery per alert and configured channel (`claim_deliveries.py`) and
sends them (`deliver_alert.py`): Slack by incoming webhook, e-mail by SMTP. `domain/` writes the messages, pure.
"""
