"""Network primitives: namespaces, sockets, the poller. Knows nothing of meshes or HTTP/2."""
