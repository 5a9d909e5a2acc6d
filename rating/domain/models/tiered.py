"""Tiered: Stripe's way of saying graduated or volume, by `tiers_mode`."""

from __future__ import annotations

from typing import ClassVar

from core.errors import must_hold
from rating.domain.fields import Fields
from rating.domain.models.graduated import Graduated
from rating.domain.models.volume import Volume
from rating.domain.price import Basis, Inputs, Price, Rated


class Tiered(Price):
    """Only a name: reading it gives the model that `tiers_mode` names."""

    model: ClassVar[str] = "tiered"
    basis: ClassVar[Basis] = Basis.USAGE

    @classmethod
    def read(cls, fields: Fields, dimensions: tuple[str, ...]) -> Price:
        """Read `tiers_mode` (required) and what graduated and volume have."""
        mode = fields.choice("tiers_mode", ("graduated", "volume"), "invalid_choice")
        return Volume.read(fields, dimensions) if mode == "volume" else Graduated.read(fields, dimensions)

    def rate(self, inputs: Inputs) -> Rated:
        """Stop the work: no price of this class is ever read."""
        must_hold(False, "a tiered price is read as graduated or volume")
        return Rated(())
