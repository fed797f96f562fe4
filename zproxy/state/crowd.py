"""The endpoints of a service that has many: one is picked without a look at all the others."""

from collections.abc import Callable, Iterator, Sequence
from typing import overload

from zproxy.model.workload import Workload
from zproxy.state.choose import Candidate


class Crowd(Sequence[Candidate]):
    """The candidates of a service that are equally near and weigh the same, so that a draw is a number.

    As a sequence it is what a list of all of them would be, at that price; `at` and `of` cost one of them.
    """

    __slots__ = ("_candidate", "_find_all", "_members")

    def __init__(
        self,
        members: Sequence[Workload],
        candidate: Callable[[Workload], Candidate | None],
        find_all: Callable[[], Sequence[Candidate]],
    ) -> None:
        """Make candidates of `members`, all at once or by `candidate`: None for who cannot be reached."""
        self._members = members
        self._candidate = candidate
        self._find_all = find_all

    @property
    def places(self) -> int:
        """Arguments of `at`, at least one; there may be fewer candidates."""
        return len(self._members)

    def at(self, place: int) -> Candidate | None:
        """Return the candidate of a place; None if there is none."""
        return self._candidate(self._members[place])

    def of(self, workload: Workload) -> Candidate | None:
        """Return an endpoint of the service as a candidate; None if it is none."""
        if self.at(0) is None:
            return next((each for each in self.all() if each.workload.uid == workload.uid), None)
        return self._candidate(workload)

    def all(self) -> Sequence[Candidate]:
        """Return all of them; the same object as long as the mesh is the same."""
        return self._find_all()

    def __bool__(self) -> bool:
        return self.at(0) is not None or len(self) > 0

    def __len__(self) -> int:
        return len(self.all())

    def __iter__(self) -> Iterator[Candidate]:
        if self.at(0) is None:
            return iter(self.all())  # perhaps none of them can be reached, and others take their place
        return (found for each in self._members if (found := self._candidate(each)) is not None)

    @overload
    def __getitem__(self, index: int) -> Candidate: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Candidate]: ...
    def __getitem__(self, index: int | slice) -> Candidate | Sequence[Candidate]:
        return self.all()[index]
