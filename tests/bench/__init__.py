"""noderuntime beside containerd on one machine: the same work in turns, and what it took each of them.

``python -m bench.cri`` runs pods, ``python -m bench.images`` pulls images. Both print tables and
write ``build/bench/<name>.json``; neither fails because of a number.
"""
