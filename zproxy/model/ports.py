"""The ports of a straw. They are the mesh's, not the operator's: every node must use the same ones."""

from typing import Final

OUTBOUND: Final = 15001
INBOUND_PLAINTEXT: Final = 15006
INBOUND_HBONE: Final = 15008
DNS: Final = 15053
ILLEGAL: Final = frozenset({OUTBOUND, INBOUND_PLAINTEXT, INBOUND_HBONE, DNS})
"""NEVER a target: reaching one of our own listeners through ourselves would be a loop."""
