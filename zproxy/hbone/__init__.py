"""Tunnels: drivers that move bytes between sockets and the wire machines, and the pool that shares them."""
