"""The semantic cache as a person works with it: what it met, labels, a calibrated plan, wrong answers taken out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nbllm.core.ports.matches import Match
from nbllm.core.semantic.plan import SemanticPlan
from nbllm.errors import ConfigurationError
from nbllm.labelling import Labelling
from nbllm.notices import say
from nbllm.pipeline import judging
from nbllm.semantic_plans import Calibration, calibration_of, plan_path, write_whole

_MOST_JUDGED = 10_000


@dataclass(frozen=True, slots=True)
class Judged:
    """What a judge did. labels: made. unclear: matches of which it said neither yes nor no."""

    labels: int
    unclear: int


class SemanticBook(Labelling):
    """`client.semantic`: matches, labels and plans of the client's home. Not for the client's own loop."""

    # ------------------------------------------------------------------ calibrating

    def calibrate(self, *, max_error: float = 0.05, confidence: float = 0.95, seed: int = 0) -> Calibration:
        """Find the lowest similarity from which at most max_error of the hits are wrong, or say what is missing.

        Uses the labels that were made with the embedder and the guards in force: those of audits where there are any, else
        imported ones, else the judge's. Each new look at them spends some of the level, so label and look as often as you like;
        the same look again is free. Raises InvalidRequest without labels, InvalidLabels for values out of range.
        """
        embedder, guards = self._in_use()
        return calibration_of(
            self.labels(),
            embedder=embedder,
            guards=guards,
            index_rows=self._client._run(lambda house: house.storage.index.count()),  # noqa: SLF001 - a page of the client
            look=self._matches.look,
            max_error=max_error,
            confidence=confidence,
            seed=seed,
        )

    def apply(
        self,
        calibration: Calibration,
        *,
        threshold: float | None = None,
        path: str | Path | None = None,
        accept_foreign: bool = False,
    ) -> Path:
        """Write the plan to its file, switch it on for the calls that follow, and return where it is.

        threshold: another point of the plan's curve, with the bound that holds there. path: by default beside the settings file.
        accept_foreign: needed for a plan whose labels are no sample of this traffic. To keep it on, put
        `[semantic_cache] mode = "on", plan = ...` into nbllm.toml. Raises ConfigurationError.
        """
        plan = calibration.semantic_plan(threshold)
        if plan.origin != "audit" and not accept_foreign:
            raise ConfigurationError(
                f"This plan comes from {plan.origin} labels: it holds for pairs like these, and perhaps not for your traffic.",
                hint="Label what shadow mode meets (%llm_label), or accept it: apply(..., accept_foreign=True).",
            )
        where = plan_path(path)
        write_whole(where, plan.to_json())
        values = {"mode": "on", "plan": str(where), "accept_foreign": accept_foreign}
        self._house.road.semantic.plans.changed()
        self._client.configure("semantic.apply", **{f"semantic_cache.{name}": value for name, value in values.items()})
        return where

    def judge(self, model: str, *, limit: int = 100) -> Judged:
        """Have a model label matches: first those that a person has labelled, which shows how far it can be trusted, then others.

        Costs `limit` calls of the model at most; labels have the origin "judge" and make a plan only where there are no others.
        """
        done = {label.match_id for label in self.labels(origin="judge")}
        by_hand = {label.match_id for label in self.labels(origin="audit")}
        matches = [
            match for match in self._matches.newest(_MOST_JUDGED) if match.probability is not None and match.match_id not in done
        ]
        matches.sort(key=lambda match: (match.match_id not in by_hand, match.order))
        labelled = unclear = 0
        for match in matches[:limit]:
            asked = judging.messages(match.query, match.question)
            reply = self._client.ask(asked, model=model, feature="semantic judge", **judging.BRIEF)
            same = judging.verdict(reply.text)
            if same is None:
                unclear += 1
            else:
                labelled += 1
                self.label(match, same, origin="judge")
        return Judged(labelled, unclear)

    def _labelled(self, match: Match) -> None:
        if match.kind == "audit" and match.plan_id is not None:
            self._hold_against_audits(match.plan_id)

    def _hold_against_audits(self, plan_id: str) -> None:
        """Take a plan back when later audits speak against it, at a confidence that holds however often one looks."""
        from nbllm.calibration import audit_verdict

        plan = self._plan(plan_id)
        audits = [one for one in self.labels(origin="audit") if one.plan_id == plan_id and one.kind == "audit"]
        if plan is None or not audits:
            return
        weights = [1.0 / one.probability if one.probability else 1.0 for one in audits]
        found = audit_verdict([one.correct for one in audits], weights, max_error=plan.max_error, confidence=plan.confidence)
        if not found.exceeded:
            return
        reason = (
            f"{found.errors} of {found.n} audited hits were wrong, so at least {found.error_lower:.1%} of all are, and "
            f"{plan.max_error:.1%} was promised"
        )
        if self._matches.take_back(plan_id, reason):
            self._house.road.semantic.plans.changed()
            say((f"The semantic cache is back in shadow: {reason}. Calibrate again with these labels.",))

    def _plan(self, plan_id: str) -> SemanticPlan | None:
        file = self._client.settings.semantic_cache.plan
        try:
            plan = None if file is None else SemanticPlan.from_json(Path(file).read_text(encoding="utf-8"), where=file)
        except (OSError, UnicodeDecodeError, ConfigurationError):
            return None
        return plan if plan is not None and plan.plan_id == plan_id else None
