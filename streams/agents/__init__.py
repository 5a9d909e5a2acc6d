"""Faust agents: thin entry points that decode, call a rule, write, and move on."""
