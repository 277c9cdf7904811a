"""What runs on a Kubernetes cluster: its objects rendered, its pods understood, its API server asked.

All but `cluster` is pure: dictionaries in, dictionaries out.
"""
