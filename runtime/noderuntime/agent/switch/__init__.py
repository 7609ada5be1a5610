"""The switch: changes the kubelet's CRI endpoint in a transaction, run by a systemd unit on the node.

``facts`` observes the kubelet, ``plan`` (pure) selects the files to change, ``journal`` stores their
previous content, and ``transaction`` changes them or rolls back. The verbs are in ``run`` (apply and
resume), ``revert``, ``uninstall`` and ``status``.
"""
