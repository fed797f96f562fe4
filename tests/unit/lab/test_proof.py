"""Proofs as people and machines read them."""

from zproxy.lab.proof import Evidence, Proof, render

FOUND = (Evidence("ss -lnt", ("LISTEN *:15001",)),)


def test_a_proof_holds_exactly_when_nothing_speaks_against_it() -> None:
    assert Proof(1, "it is so", FOUND, ()).holds
    assert not Proof(1, "it is so", FOUND, ("it is not",)).holds


def test_text_has_the_command_the_finding_and_the_verdict() -> None:
    assert render(Proof(1, "it is so", FOUND, ())).splitlines() == [
        "Claim 1: it is so",
        "",
        "  $ ss -lnt",
        "  LISTEN *:15001",
        "",
        "  => holds",
    ]


def test_what_speaks_against_a_claim_is_printed() -> None:
    lines = render(Proof(2, "it is so", FOUND, ("it is not",))).splitlines()
    assert lines[-2:] == ["  against it: it is not", "  => DOES NOT HOLD"]


def test_a_row_has_everything() -> None:
    assert Proof(3, "it is so", FOUND, ("it is not",)).row() == {
        "claim": 3,
        "title": "it is so",
        "holds": False,
        "evidence": [{"command": "ss -lnt", "lines": ["LISTEN *:15001"]}],
        "against": ["it is not"],
    }
