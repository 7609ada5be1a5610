"""The registry client: OCI distribution spec v1.1, pulling only."""
