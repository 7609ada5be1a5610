"""OCI runtime specs of containers, built from CRI requests by one function per concern."""
