"""The chaos suite: the product's own processes under faults, compared with an oracle that shares no code with it."""
