"""What a charge does to its usage before the price and to its amounts after it, one file each.

`read_adjustments` lists them in the order in which they apply.
"""
