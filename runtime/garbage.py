"""How often Python looks for garbage that refers to itself, in processes that make much and little of that kind."""

from __future__ import annotations

import gc


def collect_seldom(young: int, middle: int, old: int) -> None:
    """Leave what is loaded out of the collector's sight, and let it run less often: the thresholds of `gc`.

    Looking through all that a batch is made of, again and again, took a fifth of an invoice's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(young, middle, old)
