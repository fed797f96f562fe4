"""What the mesh looks like, and what follows: lookups and decisions as pure functions of a snapshot."""
