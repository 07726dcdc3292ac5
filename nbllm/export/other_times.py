"""Another time for user code in the clean process of a proof: what Python's own clocks say, shifted. Nothing else is touched.

A prompt that holds today's date is rendered as of the day when it was recorded; one that holds the hour shows that it is another
each time. Libraries that read the system's clock themselves (pandas, numpy) are not seen.
"""

from __future__ import annotations

import datetime as dt
import time as _time
from collections.abc import Callable
from typing import Any

_date, _moment = dt.date, dt.datetime
_clock_s, _clock_ns = _time.time, _time.time_ns
_without_argument = {name: getattr(_time, name) for name in ("localtime", "gmtime", "ctime")}
_strftime = _time.strftime
_shift_s = 0.0


def set_to(at_s: float) -> None:
    """Set the clocks to a Unix time; they go on from there."""
    global _shift_s  # noqa: PLW0603 - the time of a process is one
    _shift_s = at_s - _clock_s()


class _Class(type(_date)):  # type: ignore[misc]  # the metaclass of datetime's classes
    """The class that user code finds under the name: its instances are those of the true one."""

    true: type

    def __instancecheck__(cls, one: Any) -> bool:
        return isinstance(one, cls.true)

    def __subclasscheck__(cls, one: type) -> bool:
        return issubclass(one, cls.true)


class _Found:
    """What both classes have in common: they make true instances, and stand for the true types."""

    true: Any

    def __new__(cls, *args: Any, **named: Any) -> Any:
        return cls.true(*args, **named)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        # Not handler(cls.true): pydantic looks for the true class under its name, where it finds this one.
        from pydantic_core import core_schema

        return core_schema.date_schema() if cls.true is _date else core_schema.datetime_schema()


class _Date(_Found, dt.date, metaclass=_Class):
    true = _date

    @classmethod
    def today(cls) -> Any:
        return _date.fromtimestamp(_clock_s() + _shift_s)


class _Moment(_Found, dt.datetime, metaclass=_Class):
    true = _moment

    @classmethod
    def now(cls, tz: dt.tzinfo | None = None) -> Any:
        return _moment.fromtimestamp(_clock_s() + _shift_s, tz)

    @classmethod
    def today(cls) -> Any:
        return _moment.fromtimestamp(_clock_s() + _shift_s)

    @classmethod
    def utcnow(cls) -> Any:
        return _moment.fromtimestamp(_clock_s() + _shift_s, dt.UTC).replace(tzinfo=None)


def _shifted(name: str) -> Callable[..., Any]:
    true = _without_argument[name]

    def function(at_s: float | None = None) -> Any:
        return true(_clock_s() + _shift_s if at_s is None else at_s)

    return function


def install() -> None:
    """Put the clocks in place, before the user's module is imported."""
    for name, value in {
        "time": lambda: _clock_s() + _shift_s,
        "time_ns": lambda: _clock_ns() + int(_shift_s * 1e9),
        "strftime": lambda form, at=None: _strftime(
            form, _without_argument["localtime"](_clock_s() + _shift_s) if at is None else at
        ),
        **{name: _shifted(name) for name in _without_argument},
    }.items():
        setattr(_time, name, value)
    for name, value in {"date": _Date, "datetime": _Moment}.items():
        setattr(dt, name, value)
