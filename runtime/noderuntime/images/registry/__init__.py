"""A registry client for pulls (OCI distribution spec v1.1)."""
