"""The disk-backed memory of identities; `store.DiskIdentities` is what implements the port (docs/decisions/0014)."""
