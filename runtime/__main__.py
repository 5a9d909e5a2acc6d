"""`python -m runtime` is the `meterbook` command."""

from runtime.cli import main

main()
