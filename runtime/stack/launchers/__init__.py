"""One file for each engine: how to find its program, start it, ask whether it answers, and end it."""
