"""What statements say and which invoices their entries may pay; pure."""
