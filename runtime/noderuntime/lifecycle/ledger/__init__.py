"""The ledger: what was made, or is about to be."""
