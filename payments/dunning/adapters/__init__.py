"""Where dunning keeps its book, and how its mails are sent."""
