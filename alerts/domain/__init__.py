"""What an alert says and when it is tried again: pure, no I/O, no clock."""
