"""What is compared and what a gap is; counting and measuring raw events once more, apart from the stream."""
