"""The contract of identities, on memory and on disk: what was accepted is known, exactly, until it is forgotten."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from core.errors import BrokenInvariantError
from streams.adapters.identity_store.store import DiskIdentities
from streams.domain.memory_identities import MemoryIdentities
from streams.ports import Identities, Place
from tests.streams.identity_cases import DAY, claim, digest, identity, journal, nothing_at, twin


@pytest.fixture(params=["memory", "disk"])
async def identities(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Identities]:
    store: Identities = MemoryIdentities() if request.param == "memory" else disk(tmp_path)
    assert await store.load(nothing_at) is None
    yield store
    await store.close()


def disk(folder: Path) -> DiskIdentities:
    return DiskIdentities(folder / "p0", recent_max=200, sync=False, lock_wait_seconds=0.0)


def known(store: Identities, names: list[bytes]) -> dict[bytes, int]:
    """Return what a worker finds: first in `recent`, the others among the old."""
    found = {name: store.recent[name] for name in names if name in store.recent}
    others = [name for name in names if name not in store.recent]
    return found | {others[index]: counted for index, counted in store.find_old(others).items()}


async def save(store: Identities, offset: int) -> None:
    await store.checkpoint(offset, b"entry %d" % offset, b"state %d" % offset)


async def test_what_was_added_is_known_and_nothing_else(identities: Identities) -> None:
    names = [identity(number) for number in range(1_000)]
    for start in range(0, 1_000, 100):
        identities.add(claim(names[start : start + 100], first=start))
        await save(identities, start)
    assert len(identities) == 1_000
    assert known(identities, names) == {name: digest(name) for name in names}
    assert known(identities, [identity(number) for number in range(1_000, 9_000)]) == {}


async def test_digests_at_hand_are_taken_as_they_are(identities: Identities) -> None:
    names = [identity(number) for number in range(300)]
    at_hand = {name: digest(name) for name in names}
    identities.add(claim(names), at_hand)
    at_hand.clear()
    identities.add(claim([identity(400)], first=300))
    await save(identities, 0)
    assert len(identities) == 301
    assert known(identities, [*names, identity(400)]) == {n: digest(n) for n in [*names, identity(400)]}
    with pytest.raises(BrokenInvariantError):
        identities.add(claim([identity(500), identity(501)], first=301), {identity(500): digest(identity(500))})


async def test_half_an_identity_is_not_enough(identities: Identities) -> None:
    names = [identity(number) for number in range(500)]
    identities.add(claim(names))
    await save(identities, 0)
    assert known(identities, [twin(number) for number in range(500)]) == {}
    assert identities.place_of(twin(3)) is None
    identities.add(claim([twin(number) for number in range(500)], first=500))
    await save(identities, 1)
    assert known(identities, [twin(number) for number in range(500)]) == {twin(n): digest(twin(n)) for n in range(500)}
    assert identities.place_of(twin(3)) == Place(503, -1)
    assert identities.place_of(names[3]) == Place(3, -1)


async def test_a_place_is_found_for_new_and_old_alone_and_in_arrays(identities: Identities) -> None:
    identities.add(claim([identity(number) for number in range(400)], first=5_000_000_000))
    await save(identities, 0)
    identities.add(claim([identity(number) for number in range(400, 900)], first=5_000_000_400, in_array=True))
    await save(identities, 1)
    identities.add(claim([identity(900)], first=5_000_000_401))
    assert identities.place_of(identity(7)) == Place(5_000_000_007, -1)
    assert identities.place_of(identity(400)) == Place(5_000_000_400, 0)
    assert identities.place_of(identity(899)) == Place(5_000_000_400, 499)
    assert identities.place_of(identity(900)) == Place(5_000_000_401, -1)
    assert identities.place_of(identity(901)) is None


async def test_a_forgotten_day_is_forgotten_entirely_and_may_come_again(identities: Identities) -> None:
    for day in range(4):
        identities.add(claim([identity(100 * day + number) for number in range(100)], first=100 * day, day=DAY + day))
        if day < 3:
            await save(identities, day)
    everything = [identity(number) for number in range(400)]
    identities.forget_before(DAY + 2)
    assert set(known(identities, everything)) == set(everything[200:])
    assert len(identities) == 200
    assert identities.place_of(identity(0)) is None
    identities.forget_before(DAY)
    assert len(identities) == 200
    identities.add(claim([identity(0), identity(150)], first=400, day=DAY + 3))
    await save(identities, 3)
    assert set(known(identities, everything)) == {identity(0), identity(150), *everything[200:]}
    assert identities.place_of(identity(150)) == Place(401, -1)
    identities.forget_before(DAY + 4)
    assert len(identities) == 0
    assert known(identities, everything) == {}


async def test_days_that_were_saved_together_are_forgotten_apart(identities: Identities) -> None:
    everything = [identity(number) for number in range(600)]
    identities.add(claim(everything[:300], day=DAY))
    identities.add(claim(everything[300:], first=300, day=DAY + 1))
    await save(identities, 0)
    identities.forget_before(DAY + 1)
    # Many at once and few at once: they are looked up in different ways.
    assert set(known(identities, everything)) == set(everything[300:])
    assert set(known(identities, everything[290:310])) == set(everything[300:310])
    assert identities.place_of(everything[0]) is None
    identities.add(claim(everything[:300], first=600, day=DAY + 1))
    await save(identities, 1)
    assert known(identities, everything) == {name: digest(name) for name in everything}
    assert known(identities, everything[:10]) == {name: digest(name) for name in everything[:10]}
    assert identities.place_of(everything[0]) == Place(600, -1)


async def test_an_identity_is_asked_for_twice_in_one_batch(identities: Identities) -> None:
    identities.add(claim([identity(number) for number in range(300)]))
    await save(identities, 0)
    # What is in `recent` is not told again; what is not, at every place it is asked for.
    batch = [identity(0), identity(999), identity(0), identity(299)]
    expected = {index: digest(name) for index, name in enumerate(batch) if name not in identities.recent and index != 1}
    assert identities.find_old(batch) == expected
    assert identities.find_old([]) == {}


async def test_an_identity_accepted_twice_is_our_own_mistake(identities: Identities) -> None:
    identities.add(claim([identity(1)]))
    with pytest.raises(BrokenInvariantError, match="twice"):
        identities.add(claim([identity(1)], first=1))


async def test_what_is_loaded_is_the_checkpoint_or_nothing(tmp_path: Path) -> None:
    for make in (MemoryIdentities, lambda: disk(tmp_path)):
        store: Identities = make()
        await store.load(nothing_at)
        store.add(claim([identity(number) for number in range(300)]))
        await save(store, 7)
        store.add(claim([identity(300)], first=300))
        await store.close()
        again: Identities = make()
        loaded = await again.load(journal({7: b"entry 7"}))
        assert len(again) == (300 if loaded else 0)
        if loaded is not None:
            assert (loaded.journal_offset, loaded.state) == (7, b"state 7")
            assert len(known(again, [identity(number) for number in range(301)])) == 300
        await again.close()
