"""`did you mean`: the nearest known name, for messages about unknown ones."""

from __future__ import annotations

from collections.abc import Iterable


def nearest(name: str, known: Iterable[str], *, cutoff: float = 0.65) -> str | None:
    """Return the known name that `name` was most likely meant to be, None when none is near. Case does not count.

    cutoff: how alike they must be, 0 to 1 (difflib's ratio).
    """
    import difflib

    by_folded = {k.casefold().replace("-", "_"): k for k in known}
    folded = name[:100].casefold().replace("-", "_")
    match = difflib.get_close_matches(folded, by_folded, n=1, cutoff=cutoff)
    return by_folded[match[0]] if match else None


def did_you_mean(name: str, known: Iterable[str], *, limit: int = 12) -> str:
    """Return a hint: the nearest known name, else what there is (at most `limit` names), else ""."""
    names = sorted(set(known))
    best = nearest(name, names)
    if best is not None:
        return f"Did you mean {best}?"
    if not names:
        return ""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return f"Known: {', '.join(names[:limit])}{more}."
