"""How requests become usage events and readings become answers: pure, no I/O, no clock."""
