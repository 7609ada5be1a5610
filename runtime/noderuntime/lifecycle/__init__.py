"""What a pod goes through: sandboxes and containers, their ledger, recovery, events and statistics."""
