"""The four views that are compared, and where findings are kept."""
