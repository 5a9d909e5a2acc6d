"""Tax, purely: what a supply is taxed at and where, how tax is rounded and shared out. Nothing here does I/O."""
