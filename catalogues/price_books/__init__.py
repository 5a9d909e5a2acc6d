"""Price books of language models: foreign tables of prices, read into one shape and written as an ordinary catalogue.

A reader per format turns a table into a `PriceSheet`; `write_book` turns that into a catalogue. Nothing here prices
usage: that is `rating`, under the book like under any other plan.
"""
