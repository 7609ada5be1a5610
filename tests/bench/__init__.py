"""Benchmarks of noderuntime and containerd on one machine, which do the same work in turns.

``python -m bench.cri`` runs pods, ``python -m bench.images`` pulls images. Both print tables and
write ``build/bench/<name>.json`` with a chart beside it; no figure makes them fail.
"""
