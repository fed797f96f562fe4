"""Kubernetes as the source of the mesh, and of which pods of this node are in it."""
