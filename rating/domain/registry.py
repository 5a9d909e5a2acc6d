"""The price models by their name in a catalogue: one line each."""

from __future__ import annotations

from rating.domain.models.commitment import Commitment
from rating.domain.models.dynamic import Dynamic
from rating.domain.models.flat import Flat
from rating.domain.models.graduated import Graduated
from rating.domain.models.graduated_percentage import GraduatedPercentage
from rating.domain.models.included import Included
from rating.domain.models.matrix import Matrix
from rating.domain.models.minimum import Minimum
from rating.domain.models.package import Package
from rating.domain.models.per_unit import PerUnit
from rating.domain.models.percentage import Percentage
from rating.domain.models.reserved import Reserved
from rating.domain.models.scheduled import Scheduled
from rating.domain.models.scheduled_matrix import ScheduledMatrix
from rating.domain.models.tiered import Tiered
from rating.domain.models.time_weighted import TimeWeighted
from rating.domain.models.volume import Volume
from rating.domain.price import Price

PRICE_MODELS: dict[str, type[Price]] = {
    Flat.model: Flat,
    PerUnit.model: PerUnit,
    Included.model: Included,
    Graduated.model: Graduated,
    Volume.model: Volume,
    Tiered.model: Tiered,
    Package.model: Package,
    Percentage.model: Percentage,
    GraduatedPercentage.model: GraduatedPercentage,
    Matrix.model: Matrix,
    Dynamic.model: Dynamic,
    Reserved.model: Reserved,
    Scheduled.model: Scheduled,
    ScheduledMatrix.model: ScheduledMatrix,
    TimeWeighted.model: TimeWeighted,
    Minimum.model: Minimum,
    Commitment.model: Commitment,
}
