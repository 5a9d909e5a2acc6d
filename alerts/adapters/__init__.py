"""Slack, SMTP and PostgreSQL behind the ports of `alerts.ports`."""
