"""The main job, shown: `meterbook demo`. Usage in, paid invoices out, on the embedded stack, checked by an oracle.

`scenario` and `azure_trace` make usage, `oracle` knows what must come out (and shares no code with the pipeline),
`fleet` runs the processes, `feeders` send, `observe` reads, `live_view` and `report` show.
"""
