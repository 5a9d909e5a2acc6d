"""The price models, one file each; `rating.domain.registry` lists them."""
