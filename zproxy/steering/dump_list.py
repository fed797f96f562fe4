"""One object, or several in a list, as bpftool prints what its `show` commands found."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from zproxy.steering.dump_entries import View
from zproxy.steering.grammar import DumpError

_Object = TypeVar("_Object")
Describe = Callable[[_Object, int], str]
"""Returns an object as text; the number is the depth of its first bracket in JSON."""


def show_these(objects: Sequence[_Object], view: View, describe: Describe[_Object]) -> Iterator[str]:
    """Print what was asked for: in JSON one object stands alone. None is a failure without words."""
    if not objects:
        raise DumpError
    if view.is_json and len(objects) == 1:
        yield describe(objects[0], 0) + "\n"
    else:
        yield from show_list(objects, view, describe)


def show_list(objects: Iterable[_Object], view: View, describe: Describe[_Object]) -> Iterator[str]:
    """Print all, as a list however many there are; in JSON a failure of the walk becomes its last part."""
    if not view.is_json:
        yield from (describe(each, 0) for each in objects)
        return
    comma = ""
    failure = None
    yield "["
    try:
        for each in objects:
            yield comma + describe(each, 1)
            comma = ","
    except DumpError as error:
        failure = error
        yield comma + view.layout.error(str(error), 1)
        comma = ","
    yield (view.layout.line(0) if comma else "") + "]\n"
    if failure:
        raise DumpError(status=failure.status)
