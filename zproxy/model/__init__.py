"""Values of the mesh: addresses, identities, workloads, connections.

Standard library only, no I/O, no clock. Everything here is immutable and safe to share.
"""
