"""One pod's straw: its listeners, and what becomes of each connection."""
