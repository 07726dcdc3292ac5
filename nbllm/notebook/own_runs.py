"""Which of the recorded runs of a home are this notebook's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from nbllm.core.ports import Recording
from nbllm.core.recorded import Own, own_recordings
from nbllm.flow_context import origin_now
from nbllm.notebook.lab.origin import name_now

_RECORDINGS = 2_000


def own_runs(client: Any, flows: Iterable[str]) -> Own:
    """Return the recordings that count for these flows of this notebook: of this session, or made in it before.

    A notebook that was renamed keeps those of its old name. Of a kernel that several notebooks share, only this one's count.
    """
    here = origin_now().notebook

    def is_own(one: Recording) -> bool | None:
        if one.notebook is not None and here is not None:
            return name_now(one.notebook, one.started_at) == here
        return True if one.session == client.session else None

    return own_recordings(client.recordings.newest(_RECORDINGS), flows, is_own)
