"""A match and its label."""

from __future__ import annotations

import time

from nbllm.core.ports.matches import Label, Match

MATCH = Match(
    match_id="m1", at=float(int(time.time())), call_id="c1", kind="shadow", rung="lab/m", scope="s",
    embedder="lexical/1", guards="1 all",
    query="How do I log in?", question="How can I log in?", key="k1", score=0.93, would="Like this.", got="Like that.",
    probability=1.0, order=0.5,
)  # fmt: skip
LABEL = Label(
    label_id="l1", at=2000.0, correct=True, origin="audit", score=0.93, scope="s", embedder="lexical/1", guards="1 all",
    query="How do I log in?", question="How can I log in?", probability=1.0, match_id="m1",
)  # fmt: skip
