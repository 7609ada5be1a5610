"""The ledger: the database of sandboxes and containers."""
