"""The operator and simulated agents on a real etcd and kube-apiserver, with thousands of Nodes.

No kubelet and no controller manager runs. Simulated nodes do the part of both: they create the agent's pod
of a claimed node, and run the agent's real loop and client around a node that is Ready at once.
"""
