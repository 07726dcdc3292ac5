"""What is given to be calibrated on, checked: columns of numbers, of truths, of weights, and rates."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nbllm.errors import InvalidLabels

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Counts = NDArray[np.int64]

_SHAPE_HINT = "One number a row, such as the cosine of a question and the stored one; the greater the more alike."


def numbers(values: ArrayLike, name: str, *, missing: bool = False) -> Floats:
    """Return a column of finite numbers, (n,) with n > 0. missing: NaN may stand in it. Raises InvalidLabels."""
    column = _array(values, name)
    if column.ndim != 1:
        raise InvalidLabels(f"{name} have the shape {column.shape}; what is asked for is (n,).", hint=_SHAPE_HINT)
    if not column.size:
        raise InvalidLabels(f"{name} are empty: there is nothing to calibrate on.", hint="%llm_label shows what to label.")
    if column.dtype.kind == "O":
        try:
            column = np.array([float(value) for value in column])
        except (TypeError, ValueError) as error:
            raise InvalidLabels(f"{name} hold something that is no number: {error}.", hint=_SHAPE_HINT) from error
    if column.dtype.kind not in "fiu":
        raise InvalidLabels(f"{name} have the dtype {column.dtype}, which are no numbers.", hint=_SHAPE_HINT)
    finite = np.isfinite(column) | (np.isnan(column) if missing else False)
    if not finite.all():
        at = int(np.flatnonzero(~finite)[0])
        count = int(np.count_nonzero(~finite))
        raise InvalidLabels(
            f"{count:,} of {column.size:,} {name} are not finite; the first is {column[at]} in row {at}.",
            hint="Leave such rows out, or find out why they have none: a zero vector has no cosine.",
        )
    return column.astype(np.float64)


def truths(values: ArrayLike, name: str, n: int | None = None) -> Bools:
    """Return a column of True and False, (n,); 1 and 0 are taken for them. Raises InvalidLabels."""
    column = _array(values, name)
    if n is None and column.ndim == 1:
        n = column.size
    if n is None or column.shape != (n,):
        beside = "" if n is None else f"; what is asked for is {(n,)}"
        raise InvalidLabels(f"{name} has the shape {column.shape}{beside}.", hint="One row per would-be hit in all columns.")
    if column.dtype.kind == "b":
        return column.astype(np.bool_)
    try:
        number = column.astype(np.float64)
    except (TypeError, ValueError):
        number = np.full(n, np.nan)
    bad = np.flatnonzero(~np.isin(number, (0.0, 1.0)))
    if bad.size:
        raise InvalidLabels(
            f"{name} holds {column[bad[0]]!r} in row {bad[0]}; what is asked for is True or False (1 or 0).",
            hint="Leave out rows that nobody has judged.",
        )
    result: Bools = number == 1.0
    return result


def weights_of(values: ArrayLike | None, n: int) -> Floats | None:
    """Return weights (n,) of 1 or more, None where none were given. Raises InvalidLabels."""
    if values is None:
        return None
    weights = numbers(values, "weights")
    if weights.shape != (n,):
        raise InvalidLabels(f"weights have the shape {weights.shape}, scores have {(n,)}.", hint="One weight a row, or None.")
    if weights.min() < 1 - 1e-9:
        raise InvalidLabels(
            f"The smallest weight is {weights.min():g}; a weight is 1 / (the probability that the row was chosen), so 1 or more.",
            hint="Given probabilities? Pass 1 / probability. Given relative weights? Divide them by the smallest.",
        )
    return weights


def greatest_weight(given: float | None, weights: Floats | None) -> float:
    """Return the greatest weight that can come: the one given, else the greatest there is. Raises InvalidLabels."""
    heaviest = 1.0 if weights is None or not weights.size else float(weights.max())
    if given is None:
        return heaviest
    if not math.isfinite(given) or given < heaviest:
        raise InvalidLabels(
            f"max_weight is {given:g}, and a row weighs {heaviest:g}.",
            hint="max_weight is 1 / (the smallest probability with which any row may be chosen).",
        )
    return float(given)


def audited(correct: ArrayLike, weights: ArrayLike | None, max_weight: float | None) -> tuple[Bools, Floats, Floats]:
    """Return which audited hits were wrong, their weights over the greatest possible, and their weights; (n,) each, n may be 0."""
    wrong = ~truths(correct, "correct")
    given = weights_of(weights, wrong.size) if wrong.size else None
    heaviest = greatest_weight(max_weight, given)
    weight = np.ones(wrong.size) if given is None else given
    return wrong, weight / (1.0 if given is None else heaviest), weight


def checked_rate(value: float, name: str, least: float = 0.0) -> float:
    """Return a number greater than `least` and below 1. Raises InvalidLabels for any other."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.floating) or not least < float(value) < 1:
        raise InvalidLabels(
            f"{name} is {value!r}; what is asked for is a number greater than {least:g} and below 1.",
            hint="5% is 0.05; a confidence of 95% is 0.95.",
        )
    return float(value)


def _array(values: ArrayLike, name: str) -> NDArray[Any]:
    try:
        return np.asarray(values)
    except ValueError as error:
        raise InvalidLabels(f"{name} are rows of different lengths, which is no column.", hint=_SHAPE_HINT) from error
