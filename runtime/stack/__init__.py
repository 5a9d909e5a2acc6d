"""The embedded stack: the real engines (Kafka, ClickHouse, Redis, PostgreSQL) on one machine without Docker."""

from runtime.stack.stack import EngineStatus, down, launcher, log_paths, status, up
from runtime.stack.state import EngineState, StackState

__all__ = ["EngineState", "EngineStatus", "StackState", "down", "launcher", "log_paths", "status", "up"]
