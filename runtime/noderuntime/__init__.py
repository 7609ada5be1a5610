"""noderuntime: a CRI runtime that runs pods in runc and gVisor."""

__version__ = "0.1.0"
