"""Pure rules of the stream: what a micro-batch of records changes, and what sinks make of the journal."""
