"""The Container Runtime Interface's schema."""
