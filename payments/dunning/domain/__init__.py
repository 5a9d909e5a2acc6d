"""The rules of dunning. Pure."""
