"""What can go wrong with the embedded stack. Owns its typed errors: each says what happened and what to do next."""

from __future__ import annotations

from core.errors import MeterbookError, UnavailableError


class StackError(UnavailableError):
    """The embedded stack cannot do this now."""

    code = "stack_unavailable"


class RegistryUnreachableError(StackError):
    """A package registry did not give what the embedded stack needs."""

    code = "registry_unreachable"


class ChecksumMismatchError(MeterbookError):
    """A downloaded file is not the one that was locked."""

    code = "checksum_mismatch"


class InvalidLockError(MeterbookError):
    """The lock of Kafka's jars cannot be read."""

    code = "invalid_lock"


class PackageMissingError(StackError):
    """A package that brings an engine is not installed."""

    code = "engine_package_missing"


class EngineFailedError(StackError):
    """An engine did not come up."""

    code = "engine_failed"


class EngineUnstoppableError(StackError):
    """An engine did not end, not even by kill -9."""

    code = "engine_unstoppable"


class HomeNotUsableError(StackError):
    """The stack's folder cannot be used."""

    code = "home_not_usable"


class UnknownEngineError(MeterbookError):
    """There is no engine of that name."""

    code = "unknown_engine"
