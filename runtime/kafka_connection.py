"""Makes a connection to Kafka that broke known as broken, whatever the event loop says of it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import KafkaConnectionError, KafkaError

_GUARDED = "_takes_uvloops_word"


def take_uvloops_word() -> None:
    """Have aiokafka take uvloop's word for a connection that broke: RuntimeError, where asyncio says nothing.

    Without this the first such word ends the task that keeps a client's metadata, or the one that sends: the client
    then waits for ever, though the broker is back (aiokafka issue 1038). To be called before uvloop runs; again does
    nothing.
    """
    for name in ("send", "_send_sasl_token"):
        method = getattr(AIOKafkaConnection, name)
        if not hasattr(method, _GUARDED):
            setattr(AIOKafkaConnection, name, _guarded(method))


def _guarded(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def guarded(self: AIOKafkaConnection, *given: Any, **named: Any) -> Any:
        try:
            return method(self, *given, **named)
        except KafkaError:
            # They are RuntimeErrors too.
            raise
        except RuntimeError as error:
            self.close(reason=CloseReason.CONNECTION_BROKEN)
            raise KafkaConnectionError(f"Connection at {self.host}:{self.port} broken: {error}") from error

    setattr(guarded, _GUARDED, True)
    return guarded
