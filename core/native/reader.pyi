"""Types of the C module."""

from core.usage_event import Measure

class Reader:
    """Reads ordinary usage events; what it returns None for is judged in Python."""

    def __init__(
        self,
        types: dict[str, tuple[tuple[str, str | None, tuple[str, ...]], ...]],
        subjects: dict[str, str],
        max_bytes: int,
        max_events: int,
        max_ahead_us: int,
        max_age_us: int,
        earliest_us: int,
        latest_us: int,
    ) -> None: ...
    def read(self, value: bytes, received_us: int, /) -> tuple[str, int, bytes, int, list[Measure]] | None: ...
    def read_records(
        self,
        records: list[object],
        begin: int,
        most: int,
        first: int,
        events: list[tuple[object, ...]],
        places: list[int],
        /,
    ) -> int: ...
    def read_array(
        self, value: bytes, received_us: int, /
    ) -> list[tuple[str, int, bytes, int, list[Measure]]] | None: ...

def add_up(
    events: list[tuple[object, ...]],
    places: list[int],
    recent: dict[bytes, int],
    old: dict[int, int],
    identities: dict[bytes, int],
    accepted_places: list[int],
    windows: dict[tuple[str, str, tuple[str, ...], int], list[int]],
    newest_us: int,
) -> tuple[int, int, list[int], list[int]]: ...
def fold(
    measured: dict[tuple[str, str, tuple[str, ...], int], list[int]],
    cells: dict[tuple[str, str, tuple[str, ...], int], object],
    closed_before: dict[str, int],
    segment: int,
    received_ms: int,
    cell: type[object],
    window_row: type[object],
    late_row: type[object],
    /,
) -> tuple[list[object], list[object], dict[tuple[str, str, int], list[int]]]: ...
