"""The access log's part of claim 3: both ends of each connection have a line, and the two agree."""

from collections import Counter
from collections.abc import Iterator
from typing import Final

from zproxy.lab.logs import AccessLine
from zproxy.lab.observation import Observation, PodEvidence
from zproxy.lab.proof import Evidence
from zproxy.lab.traffic import Answer
from zproxy.model import ports
from zproxy.model.addr import Endpoint

_SHOWN: Final = 1
"""Lines of each end that are printed; they are long and alike."""
_FIELDS: Final = (
    *("src.addr", "src.identity", "dst.addr", "dst.hbone_addr", "dst.service", "dst.identity"),
    *("direction", "bytes_sent", "bytes_recv", "error"),
)


def evidence(seen: Observation) -> tuple[Evidence, ...]:
    """Return some lines of both ends, without the fields that say nothing here."""
    return tuple(_lines(pod, found) for pod, found in zip(seen.pods(), _of_this_run(seen), strict=True))


def against(seen: Observation) -> Iterator[str]:
    """Yield what the lines of the log lack or have otherwise; a log that is no file cannot be judged."""
    outbound, inbound = _of_this_run(seen)
    if seen.source.log:
        yield from _wrong_outbound(seen, outbound)
    if seen.target.log:
        yield from _wrong_identities(seen, seen.target, inbound)
    if seen.source.log and seen.target.log:
        yield from _wrong_bytes(seen, outbound, inbound)
    for pod in seen.pods():
        if pod.row.identity not in pod.identities:
            yield f"{pod.row.node} has no valid certificate for {pod.row.identity}"


def line_of(seen: Observation, answer: Answer) -> AccessLine | None:
    """Return the line in which the source's daemon says how it carried a connection of the app."""
    outbound, _ = _of_this_run(seen)
    return next((line for line in outbound if line.get("src.addr") == str(answer.local)), None)


def _of_this_run(seen: Observation) -> tuple[list[AccessLine], list[AccessLine]]:
    """Return the lines of the source's end, and those of the target's about the source."""
    client = seen.source.row.pod
    return (
        [line for line in seen.source.access if line.get("direction") == "outbound"],
        [
            line
            for line in seen.target.access
            if line.get("direction") == "inbound"
            and f"{line.get('src.namespace')}/{line.get('src.workload')}" == client
        ],
    )


def _lines(pod: PodEvidence, found: list[AccessLine]) -> Evidence:
    if not pod.log:
        return Evidence(f"the log of {pod.row.node}", ("(goes to no file, so it is not looked at)",))
    shown = [_short(line) for line in found[:_SHOWN]]
    if len(found) > _SHOWN:
        shown.append(f"and {len(found) - _SHOWN} more connections")
    return Evidence(f"grep access {pod.log}", tuple(shown) or ("(nothing)",))


def _short(line: AccessLine) -> str:
    return " ".join(f"{field}={line.get(field)}" for field in _FIELDS if line.get(field))


def _wrong_outbound(seen: Observation, outbound: list[AccessLine]) -> Iterator[str]:
    for answer in (*seen.answers, *seen.called):
        if not any(line.get("src.addr") == str(answer.local) for line in outbound):
            yield f"the log of {seen.source.row.node} has no line of the connection from {answer.local}"
    peer = str(Endpoint(seen.target.address, ports.INBOUND_HBONE))
    asked = {str(Endpoint(seen.target.address, port)) for port in seen.ports}
    mine = {str(answer.local) for answer in seen.answers}
    for line in outbound:
        if line.get("src.addr") not in mine:
            continue
        if line.get("dst.addr") != peer:
            yield f"a line has dst.addr={line.get('dst.addr')}, not {peer}"
        if line.get("dst.hbone_addr") not in asked:
            yield f"a line has dst.hbone_addr={line.get('dst.hbone_addr')}, which nobody asked for"
    yield from _wrong_identities(
        seen, seen.source, [line for line in outbound if line.get("src.addr") in mine]
    )


def _wrong_identities(seen: Observation, pod: PodEvidence, lines: list[AccessLine]) -> Iterator[str]:
    wanted = seen.source.row.identity, seen.target.row.identity
    for line in lines:
        found = line.get("src.identity"), line.get("dst.identity")
        if found != wanted:
            yield f"a line of {pod.row.node} names {' and '.join(map(repr, found))}: not these pods"
        if line.get("error"):
            yield f"a line of {pod.row.node} has the error {line.get('error')!r}"


def _wrong_bytes(seen: Observation, outbound: list[AccessLine], inbound: list[AccessLine]) -> Iterator[str]:
    """Look for each line of the client's end on the server's, with what is sent here received there."""
    asked = {str(answer.local) for answer in seen.answers}
    sent = Counter(
        (line.get("dst.hbone_addr"), line.get("bytes_sent"), line.get("bytes_recv"))
        for line in outbound
        if line.get("src.addr") in asked
    )
    received = Counter(
        (line.get("dst.hbone_addr"), line.get("bytes_recv"), line.get("bytes_sent")) for line in inbound
    )
    for (address, there, back), number in (sent - received).items():
        yield (
            f"{number} connections to {address} sent {there} and received {back} bytes by the log of "
            f"{seen.source.row.node}, and the log of {seen.target.row.node} has no line that agrees"
        )
