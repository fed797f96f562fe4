"""A claim and how it stands: what was found, how to see it oneself, and what speaks against it."""

from typing import NamedTuple


class Evidence(NamedTuple):
    """Findings, under the command that shows an operator the same."""

    command: str
    lines: tuple[str, ...]


class Proof(NamedTuple):
    """One claim. It ALWAYS holds exactly when nothing speaks against it."""

    claim: int
    title: str
    evidence: tuple[Evidence, ...]
    against: tuple[str, ...]
    """Sentences that say what was found instead; empty when the claim holds."""

    @property
    def holds(self) -> bool:
        """Whether the claim is proven by this run."""
        return not self.against

    def row(self) -> dict[str, object]:
        """Return the proof for `-o json`."""
        return {
            "claim": self.claim,
            "title": self.title,
            "holds": self.holds,
            "evidence": [{"command": item.command, "lines": list(item.lines)} for item in self.evidence],
            "against": list(self.against),
        }


def render(proof: Proof) -> str:
    """Return the proof as text for a terminal."""
    verdict = "holds" if proof.holds else "DOES NOT HOLD"
    lines = [f"Claim {proof.claim}: {proof.title}"]
    for item in proof.evidence:
        lines += ["", f"  $ {item.command}"]
        lines += [f"  {line}" for line in item.lines]
    lines += ["", *(f"  against it: {sentence}" for sentence in proof.against), f"  => {verdict}"]
    return "\n".join(lines)
