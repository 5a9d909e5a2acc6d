"""The tables of a sample book on SQLite, one file per kind of sample; `streams.adapters.sqlite_samples` opens it."""
