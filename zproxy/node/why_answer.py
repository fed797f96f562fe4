"""An answer of `zproxy why`: what was looked at, in order, and one sentence. Pure."""

from typing import Any

from zproxy.model.route import Passthrough, Refuse, Route
from zproxy.state.trace import Trace


class Answer:
    """Sections in the order in which things happen, and one sentence."""

    def __init__(self, source: str, destination: str, protocol: str) -> None:
        self._facts = {"source": source, "destination": destination, "protocol": protocol}
        self._sections: list[tuple[str, Trace]] = []

    def section(self, title: str, trace: Trace | None = None) -> Trace:
        """Begin a section; return what its steps go into."""
        trace = trace or Trace()
        self._sections.append((title, trace))
        return trace

    def ending(self, sentence: str, *, is_allowed: bool) -> dict[str, Any]:
        """Return the whole, as JSON has it; sections without steps are left out."""
        shown = [(title, trace) for title, trace in self._sections if trace.steps]
        sections = [
            {"title": title, "steps": [step._asdict() for step in trace.steps]} for title, trace in shown
        ]
        return {**self._facts, "sections": sections, "allowed": is_allowed, "sentence": sentence}


def route_text(route: Route) -> str:
    """Return a route in a few words."""
    if isinstance(route, Refuse):
        return f"refused, {route.reason}"
    if isinstance(route, Passthrough):
        return f"past the mesh to {route.to}"
    how = "HBONE" if route.identities else "plain TCP"
    return f"{how} to the {route.role.value} {route.workload.pod} at {route.hostname or route.address}"
