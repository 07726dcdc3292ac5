"""`nbllm doctor`: what was found here, what is wrong, what to do. It leaves nothing behind and sends nothing off this machine."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict

from nbllm import __version__
from nbllm.cli import checks
from nbllm.cli.checks import Finding
from nbllm.cli.paper import Paper, plural
from nbllm.errors import NbllmError
from nbllm.settings import Settings

WORST = ("ok", "note", "broken")


def doctor(*, as_json: bool = False) -> int:
    """Print the findings and return the exit code: 1 when something is broken, else 0."""
    findings = look()
    broken = [finding for finding in findings if finding.status == "broken"]
    if as_json:
        _print_json(findings)
    else:
        _print(findings)
    return 1 if broken else 0


def look() -> list[Finding]:
    """Return every finding. A check that fails itself is a finding too, never a crash."""
    settings, findings = _settings()
    later: tuple[tuple[str, Callable[[Settings], Iterable[Finding]]], ...] = (
        ("home", checks.home),
        ("keys", checks.keys),
        ("endpoints", checks.endpoints),
        ("models", checks.models),
        ("servers", checks.servers),
        ("packages", checks.packages),
    )
    for area, check in later:
        try:
            findings += check(settings)
        except NbllmError as error:
            findings.append(Finding(area, "broken", error.summary, error.hint))
        except Exception as error:  # the doctor's own mistake must not hide what the other checks found
            findings.append(Finding(area, "broken", f"this check failed: {type(error).__name__}: {error}"))
    return findings


def _settings() -> tuple[Settings, list[Finding]]:
    try:
        settings = Settings.load()
    except NbllmError as error:
        found = Finding("settings", "broken", error.summary, error.hint)
        rest, used = _what_can_be_read()
        return rest, [found, Finding("settings", "note", f"what follows is looked at with {used}")]
    return settings, list(checks.settings(settings))


def _what_can_be_read() -> tuple[Settings, str]:
    """Return the settings that are left when a file or a variable is bad, and their name. The home that is meant stays."""
    from nbllm.settings.load import load_variables

    home = {name: value for name, value in os.environ.items() if name.upper() == "NBLLM_HOME"}
    choices: tuple[tuple[Callable[[], Settings], str], ...] = (
        (lambda: load_variables(os.environ), "the NBLLM_* variables and the defaults, without the file"),
        (lambda: Settings.load(environ=home), "the file, NBLLM_HOME and the defaults, without the other variables"),
        (lambda: load_variables(home), "NBLLM_HOME and the defaults"),
    )
    for choice, name in choices:
        with suppress(NbllmError):
            return choice(), name
    return Settings(), "the defaults"


def _print_json(findings: list[Finding]) -> None:
    from nbllm.redaction import redact

    report = {
        "nbllm": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "ok": all(finding.status != "broken" for finding in findings),
        "findings": [{name: redact(text) for name, text in asdict(finding).items()} for finding in findings],
    }
    json.dump(report, sys.stdout, indent=2, ensure_ascii=True)
    sys.stdout.write("\n")


def _print(findings: list[Finding]) -> None:
    paper = Paper()
    about = f"Python {platform.python_version()} · {platform.system()} {platform.machine()}"
    paper.line(f"{paper.ink('nbllm ' + __version__, 'bold')} · {about}")
    paper.line()
    shown = ""
    for finding in findings:
        paper.entry(finding.area, finding.status, finding.text, first=finding.area != shown)
        if finding.hint:
            paper.below(finding.hint)
        shown = finding.area
    paper.line()
    counts = {status: sum(1 for finding in findings if finding.status == status) for status in WORST}
    if counts["broken"]:
        paper.line(f"  {plural(counts['broken'], 'thing')} to repair; each says how.")
    else:
        paper.line("  Ready." + (f" {plural(counts['note'], 'note')} above." if counts["note"] else ""))
