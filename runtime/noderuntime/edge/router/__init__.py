"""Ours or upstream: decides who answers a call, and passes bytes through."""
