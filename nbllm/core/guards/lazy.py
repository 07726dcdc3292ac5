"""A value that is computed when it is first asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class lazy(Generic[T]):  # noqa: N801  # reads like the decorator that it stands in for
    """functools.cached_property without its lock, which takes longer here than most values do. For objects of one thread."""

    def __init__(self, compute: Callable[[Any], T]) -> None:
        self.compute = compute
        self.__doc__ = compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: object, owner: type) -> T:
        """Compute the value and put it in this attribute's place."""
        value = self.compute(instance)
        instance.__dict__[self.name] = value
        return value
