"""What a question about usage may be, and how windows and levels are worked out; pure."""
