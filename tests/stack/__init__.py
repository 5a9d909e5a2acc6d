"""Tests of the embedded stack: its engines, their processes and ClickHouse's HTTP interface."""
