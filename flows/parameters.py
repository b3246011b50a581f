"""Configurations as parameters of Prefect deployments: forms in its UI, checked before a run."""

import dataclasses
import typing
from collections.abc import Iterator

from pydantic import ConfigDict

STRICT = ConfigDict(extra="forbid", use_attribute_docstrings=True)


def strict(config: type) -> None:
    """Make pydantic refuse unknown keys of a configuration and describe each field.

    Without this it drops a misspelt key in silence. Set from outside, so that the configurations
    themselves, those of `pipeline` among them, need no pydantic.

    Args:
        config: a dataclass; those among the types of its fields are made strict, too.
    """
    config.__pydantic_config__ = STRICT  # pyright: ignore[reportAttributeAccessIssue] - read there
    for hint in typing.get_type_hints(config).values():
        for nested in _dataclasses_of(hint):
            strict(nested)


def _dataclasses_of(hint: object) -> Iterator[type]:
    """The dataclasses that a type is made of: itself, members of a union, items of a tuple."""
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        yield hint
    for part in typing.get_args(hint):
        yield from _dataclasses_of(part)
