"""Composition roots: the only place where stages meet settings and connections. One module per kind of process."""
