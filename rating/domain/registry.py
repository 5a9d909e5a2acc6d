"""The price models by their name in a catalogue: one line each."""

from __future__ import annotations

from rating.domain.flat import Flat
from rating.domain.graduated import Graduated
from rating.domain.included import Included
from rating.domain.matrix import Matrix
from rating.domain.minimum import Minimum
from rating.domain.per_unit import PerUnit
from rating.domain.price import Price

PRICE_MODELS: dict[str, type[Price]] = {
    Flat.model: Flat,
    PerUnit.model: PerUnit,
    Included.model: Included,
    Graduated.model: Graduated,
    Matrix.model: Matrix,
    Minimum.model: Minimum,
}
