"""What a letter is, which letters are meant, and what a replay of one sends."""
