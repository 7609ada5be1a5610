"""The switch: the kubelet's CRI endpoint changed as a transaction, on the node, by a host unit.

``facts`` looks at the kubelet, ``plan`` (pure) says which files to change, ``journal``
keeps what they were, ``transaction`` changes them and puts them back, ``apply``,
``revert``, ``uninstall`` and ``status`` are the verbs.
"""
