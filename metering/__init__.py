"""Reading and repairing what the stream counted: dead letters and reconciliation. Counting itself is `streams`."""
