"""What the kernel and the wire say at this moment: sockets, processes, interfaces, rules, packets."""
