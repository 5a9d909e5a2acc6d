"""Catalogues: meters and plans as YAML, checked fault by fault, stored as immutable versions.

`meters.yaml` and `tiers.yaml` ship with the product; another company loads its own. The pricing language itself is
`rating.domain`; this package reads files into it (`load_catalogue`) and stores the result (`apply_catalogue`).
"""
