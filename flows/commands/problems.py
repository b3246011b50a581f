"""Everything that is wrong with a configuration, said at once."""

import contextlib
import difflib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import click

Made = TypeVar("Made")


class WrongValuesError(click.UsageError):
    """Options whose values are wrong, in themselves or together."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class Checks:
    """Builds the parts of a configuration, and tells of all that are wrong together."""

    def __init__(self) -> None:
        self._problems: list[str] = []

    def part(self, make: Callable[..., Made], *values: Any, **named: Any) -> Made | None:
        """What `make` makes of the values; None where they are wrong, which `whole` will say."""
        made: list[Made] = []
        self._problems += problems_of(lambda: made.append(make(*values, **named)))
        return made[0] if made else None

    def whole(self, make: Callable[..., Made], *values: Any, **named: Any) -> Made:
        """As `part`, for the last one.

        Raises:
            WrongValuesError: naming everything that is wrong with it and with the other parts.
        """
        made = self.part(make, *values, **named)
        if self._problems or made is None:
            raise WrongValuesError(self._problems)
        return made


def problems_of(make: Callable[[], object]) -> list[str]:
    """What is wrong with the values that `make` works on."""
    try:
        make()
    except WrongValuesError as error:
        return error.problems
    except click.ClickException as error:
        return [error.format_message()]
    except ValueError as error:
        return str(error).split("; ")  # as configurations join theirs
    return []


@dataclass(slots=True)
class Problems:
    """What is wrong with a file, each with its place."""

    wrong: list[str] = field(default_factory=list)
    """One line a problem, beginning with its place."""

    def add(self, place: str, message: str) -> None:
        """One more."""
        self.wrong.append(f"{place}: {message}")

    def unknown(self, place: str, key: object, known: tuple[str, ...]) -> None:
        """A key that means nothing; says what may have been meant."""
        near = difflib.get_close_matches(str(key), known, 1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
        self.add(place, f"no such key; {hint}")

    @contextlib.contextmanager
    def at(self, place: str) -> Iterator[None]:
        """What is raised in the block is wrong with `place`."""
        try:
            yield
        except click.ClickException as error:
            self.add(place, error.format_message())
        except ValueError as error:
            self.add(place, str(error))

    def mapping(self, place: str, value: object, known: tuple[str, ...] = ()) -> dict[str, Any]:
        """`value` if it is a mapping; its keys must be among `known`, where some are given."""
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.add(place, f"must be a mapping of keys to values, is {value!r}")
            return {}
        for key in value:
            if known and key not in known:
                self.unknown(f"{place}.{key}", key, known)
        return value

    def text(self, place: str, value: object) -> str:
        """`value` if it is a text that is not empty; else an empty one."""
        if isinstance(value, str) and value:
            return value
        self.add(place, f"must be a text, is {value!r}")
        return ""
