"""Dunning: what happens to an invoice that is not paid, step by step, until it is.

`domain/` says which step is due when, pure; `schedules.yaml` is the schedule as configuration; `run_dunning.py` takes
the steps, `send_reminders.py` gets their mails out, `worker.py` does both (`meterbook worker dunning`).
"""
