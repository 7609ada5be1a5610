"""The part that runs in the machine, with the bundle's Python."""
