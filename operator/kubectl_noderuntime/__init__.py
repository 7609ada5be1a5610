"""``kubectl noderuntime``: show and steer NodeRuntimes, and explain why a pod does not run.

kubectl finds the program ``kubectl-noderuntime`` on PATH. It uses the kubeconfig and the permissions of its
user, and only the API server: it works while the operator is down.
"""
