"""How Meterbook is run: image, monitoring, dashboards, and the check that every dashboard's queries work."""
