"""A two-node laboratory on one machine, and the proofs."""
