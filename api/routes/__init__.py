"""The endpoints, one file per resource; each builds a router from `Dependencies`."""
