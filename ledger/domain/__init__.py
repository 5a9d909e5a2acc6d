"""What an entry is and which postings each cause makes. Pure."""
