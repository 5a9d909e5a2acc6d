"""The price models by their name in a catalogue: one line each."""

from __future__ import annotations

from rating.domain.models.flat import Flat
from rating.domain.models.graduated import Graduated
from rating.domain.models.included import Included
from rating.domain.models.matrix import Matrix
from rating.domain.models.minimum import Minimum
from rating.domain.models.per_unit import PerUnit
from rating.domain.price import Price

PRICE_MODELS: dict[str, type[Price]] = {
    Flat.model: Flat,
    PerUnit.model: PerUnit,
    Included.model: Included,
    Graduated.model: Graduated,
    Matrix.model: Matrix,
    Minimum.model: Minimum,
}
