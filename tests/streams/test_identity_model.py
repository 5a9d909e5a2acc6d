"""Whatever happens in whatever order, the store on disk is a plain dict: added, saved, merged, forgotten, killed."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Awaitable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from streams.adapters.identity_store import merge_runs, store
from streams.adapters.identity_store.store import DiskIdentities
from streams.ports import Loaded, Place
from tests.streams.identity_cases import DAY, claim, digest, identity, journal, nothing_at, twin

pytestmark = pytest.mark.slow

# Few enough that the same ones are asked for, forgotten and accepted again; half of them share their first eight bytes.
POOL = [make(number) for number in range(30) for make in (identity, twin)]
NAMES = st.lists(st.sampled_from(POOL), unique=True, max_size=25)


class StoreIsADict(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.home = Path(tempfile.mkdtemp())
        # Small enough that merging, renewing the filter and leaving `recent` happen all the time.
        self.patches = [
            mock.patch.object(merge_runs, "FAN_OUT", 3),
            mock.patch.object(store, "_FILTER_SMALLEST", 16),
            mock.patch.object(store, "_ONE_BY_ONE_MAX", 3),
        ]
        for patch in self.patches:
            patch.start()
        self.number = self.offset = 0
        self.day = self.first_day = DAY
        self.model: dict[bytes, tuple[Place, int]] = {}
        self.saved: tuple[int, int, dict[bytes, tuple[Place, int]]] | None = None
        self.entries: dict[int, bytes] = {}
        self.open(None)

    def wait(self, awaited: Awaitable[Any]) -> Any:
        async def one() -> Any:
            return await awaited

        return self.loop.run_until_complete(one())

    def open(self, left: Path | None) -> Loaded | None:
        folder = self.home / f"p{self.number}"
        self.number += 1
        if left is not None:
            shutil.copytree(left, folder)
        self.store = DiskIdentities(folder, recent_max=40, sync=False, lock_wait_seconds=0.0)
        loaded: Loaded | None = self.wait(self.store.load(journal(self.entries) if self.entries else nothing_at))
        return loaded

    def accept(self, names: list[bytes]) -> None:
        fresh = [name for name in names if name not in self.model]
        self.store.add(claim(fresh, first=self.offset, day=self.day))
        for number, name in enumerate(fresh):
            self.model[name] = (Place(self.offset + number, -1), self.day)
        self.offset += max(1, len(fresh))

    @rule(names=NAMES)
    def add(self, names: list[bytes]) -> None:
        self.accept(names)

    @rule(later=NAMES)
    def checkpoint(self, later: list[bytes]) -> None:
        """Save, and accept more while that is being written."""
        self.entries[self.offset] = b"entry %d" % self.offset
        state = b"state %d" % self.offset
        self.saved = (self.offset, self.first_day, dict(self.model))

        async def both() -> None:
            task = asyncio.create_task(self.store.checkpoint(self.offset, self.entries[self.offset], state))
            self.accept(later[::2])
            await asyncio.sleep(0)
            self.accept(later[1::2])
            await task

        self.wait(both())

    @rule()
    def finish_upkeep(self) -> None:
        if self.store._upkeep is not None:
            self.wait(self.store._upkeep)

    @rule(days=st.integers(0, 2))
    def pass_days(self, days: int) -> None:
        self.day += days

    @rule(back=st.integers(0, 3))
    def forget(self, back: int) -> None:
        self.first_day = max(self.first_day, self.day - back)
        self.store.forget_before(self.first_day)
        self.model = {name: known for name, known in self.model.items() if known[1] >= self.first_day}

    @rule()
    def kill(self) -> None:
        """Go on with what the disk holds this moment, whatever the threads are doing."""
        killed = self.store
        loaded = self.open(killed._path)
        self.wait(killed.close())
        if self.saved is None:
            assert loaded is None
            self.model, self.first_day = {}, DAY
        else:
            offset, self.first_day, model = self.saved
            self.model = dict(model)
            assert loaded == Loaded(offset, b"state %d" % offset)
        self.offset += 1

    @invariant()
    def it_is_the_dict(self) -> None:
        recent = self.store.recent
        found = {name: recent[name] for name in POOL if name in recent}
        others = [name for name in POOL if name not in recent]
        found.update({others[index]: counted for index, counted in self.store.find_old(others).items()})
        assert found == {name: digest(name) for name in self.model}
        assert {name: self.store.place_of(name) for name in POOL} == {
            name: self.model[name][0] if name in self.model else None for name in POOL
        }
        assert len(self.store) == len(self.model)
        assert self.store._broken is None

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            self.wait(self.store.close())
            self.loop.close()
            for patch in self.patches:
                patch.stop()
            shutil.rmtree(self.home)


TestStoreIsADict = StoreIsADict.TestCase
TestStoreIsADict.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
