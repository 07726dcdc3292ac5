"""What the pages state is so: magics and commands run, tables are those of the program, numbers are the constants."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
import tomllib
from decimal import Decimal
from pathlib import Path

import pytest

from nbllm import Client, Endpoint, Settings
from nbllm.cli import main
from nbllm.core import backoff, breaker
from nbllm.notebook.lab.bridge import EARLY_S
from nbllm.providers.hosts import OTHER_KEYS, PROVIDERS, key_for
from nbllm.settings import CALL_OPTIONS, SETTINGS

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / name for name in ("README.md", "SECURITY.md", "CHANGELOG.md", "CONTRIBUTING.md")] + sorted(
    (ROOT / "docs").glob("*.md")
)
SHELL = """
import os, sys, warnings
from IPython.core.interactiveshell import InteractiveShell
import nbllm.testing
shell = InteractiveShell.instance()
with nbllm.testing.offline():
    for cell in {cells!r}:
        done = shell.run_cell(cell)
        if not done.success:
            sys.exit(f"{{cell!r}}: {{done.error_before_exec or done.error_in_exec!r}}")
"""


def page(name: str) -> str:
    """The text of a page."""
    return (ROOT / name).read_text(encoding="utf-8")


def in_a_shell(cells: list[str], folder: Path) -> str:
    """Run cells in an IPython without key and network; return what was printed. Fails with the cell that failed."""
    variables = {
        "NBLLM_HOME": str(folder / "home"),
        "NBLLM_SIM_SPEED": "0",
        "PYTHONPATH": str(ROOT),
        "PATH": "",
        "HOME": str(folder),
    }
    variables |= {"MPLBACKEND": "agg", "IPYTHONDIR": str(folder / "ipython"), "MPLCONFIGDIR": str(folder / "matplotlib")}
    command = [sys.executable, "-c", SHELL.format(cells=cells)]
    done = subprocess.run(command, capture_output=True, text=True, env=variables, cwd=folder, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:] + done.stdout[-2000:]
    return done.stdout


def commands(first: str) -> set[str]:
    """What the pages name in code spans and begins so, flags and values included; not what has a placeholder or a cell below it."""
    spans = {span for path in PAGES for span in re.findall(r"`([^`\n]+)`", path.read_text(encoding="utf-8"))}
    found = {span for span in spans if span.startswith(first)}
    return {span for span in found if not re.search(r"[A-Z]{3,}|\.\.\.|name=value", span)}


def test_the_tour_of_the_readme_runs(tmp_path: Path) -> None:
    """The ten lines, in order, in a fresh IPython; the line that needs a key asks the simulated model instead."""
    block = page("README.md").partition("## Ten lines\n")[2].partition("\nAnd in scripts")[0]
    lines = [line[4:] for line in block.splitlines() if line.startswith("    ") or not line]
    cell = "\n".join(lines[lines.index("%%llm -m sim/large -o answer --feature summaries") :][:2])
    rest = [line for line in lines if line.startswith(("answer", "%llm", "nbllm."))]
    assert len(rest) == 6
    cells = ["%load_ext nbllm\nimport nbllm\ndoc = 'It rained all day. The river rose. The bridge was closed.'", cell]
    cells += ["for n in range(20): nbllm.ask('Name a river.', model='sim/small', sample=n)"]
    cells += [line.replace("openai/gpt-4o-mini", "sim/small") for line in rest]
    assert "river rose" in in_a_shell(cells, tmp_path)


def test_every_magic_that_the_pages_name_runs(tmp_path: Path) -> None:
    """Line magics with the arguments that the pages give them; of the plots the tour above has one."""
    named = {re.sub(r"\s+#.*", "", command) for command in commands("%llm") if not command.startswith("%llm_plot")}
    assert {"%llm_config", "%llm_calls forget --all", "%llm_config retry_budget_floor=10"} <= named
    in_a_shell(["%load_ext nbllm", "%%llm -m sim/small\nName a river.", *sorted(named)], tmp_path)


def test_every_command_that_the_pages_name_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The subcommands of nbllm and their flags; the demo, which has tests of its own, is only known here."""
    monkeypatch.setenv("NBLLM_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    named = commands("nbllm ")
    assert {"nbllm demo", "nbllm doctor", "nbllm doctor --json", "nbllm cache purge --tag sea"} <= named
    for command in sorted(named - {"nbllm demo"}):
        assert main(command.split()[1:]) in (0, 1), command
        assert "usage:" not in capsys.readouterr().err, command


def test_every_make_target_that_the_pages_name_exists() -> None:
    """`make X` stands in the Makefile."""
    targets = set(re.findall(r"^([a-z-]+):", page("Makefile"), re.MULTILINE))
    named = set(
        re.findall(r"(?:^ {4}|`)make ([a-z-]+)", "\n".join(path.read_text(encoding="utf-8") for path in PAGES), re.MULTILINE)
    )
    assert {"demo", "lab", "test", "check", "lock"} <= named <= targets


def test_every_link_leads_somewhere() -> None:
    """Relative links name files that are there, and headings that are in them."""
    for path in PAGES:
        for target in re.findall(r"\]\(([^)#\s]*(?:#[^)\s]*)?)\)", path.read_text(encoding="utf-8")):
            name, _, heading = target.partition("#")
            if name.startswith("http"):
                continue
            file = (path.parent / name) if name else path
            assert file.exists(), f"{path.name}: {target}"
            if heading:
                found = {
                    re.sub(r"[^\w -]", "", h).strip().lower().replace(" ", "-")
                    for h in re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
                }
                assert heading in found, f"{path.name}: {target}"


def test_the_file_of_the_page_of_settings_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As nbllm.toml and below [tool.nbllm]; its endpoint gets its key, because it is on this machine."""
    text = re.search(r"```toml\n(.*?)```", page("docs/settings.md"), re.DOTALL)
    assert text is not None
    (tmp_path / "nbllm.toml").write_text(text[1], encoding="utf-8")
    settings = Settings.load(start=tmp_path, environ={})
    assert (settings.ladder, settings.budgets.session_usd) == (("lab/qwen", "openai/gpt-4o-mini"), Decimal("5.0"))
    assert settings.routes["cheap"] == ("lab/qwen", "groq/llama-3.1-8b-instant")
    assert settings.notes == ()
    assert key_for("lab", settings.endpoints["lab"], {"LAB_KEY": "xyz"}) == "xyz"
    below = tmp_path / "project"
    below.mkdir()
    project = re.sub(r"^\[", "[tool.nbllm.", text[1], flags=re.MULTILINE)
    assert tomllib.loads(f"[tool.nbllm]\n{project}")
    (below / "pyproject.toml").write_text(f"[tool.nbllm]\n{project}", encoding="utf-8")
    assert Settings.load(start=below, environ={}).endpoints["lab"] == settings.endpoints["lab"]


def test_the_page_of_the_ledger_has_every_column(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tables of docs/ledger.md name the columns of the file, all of them and no others; its query runs."""
    monkeypatch.setenv("NBLLM_SIM_SPEED", "0")
    text = page("docs/ledger.md")
    with Client(home=tmp_path) as client:
        client.ask("Name a river.", model="sim/small")
        client.ledger.calls(client._filter({}), limit=1)
        con = sqlite3.connect(tmp_path / "ledger.db")

        def columns(table: str) -> set[str]:
            return {row[1] for row in con.execute(f"PRAGMA table_info({table})")}

        def told(heading: str) -> set[str]:
            section = text.partition(f"## {heading}")[2].partition("\n## ")[0]
            rows = re.findall(r"^\| (`[^|]+) \|", section, re.MULTILINE)
            return {name for row in rows for name in re.findall(r"`(\w+)`", row)}

        assert told("`calls`\n") == columns("calls")
        assert told("`attempts`\n") == columns("attempts")
        assert told("`calls_with_cost`") == columns("calls_with_cost") - (columns("calls") - {"packed"})
        for helper in ("names", "processes", "marks"):
            line = re.search(rf"`{helper}` \(([^)]*)\)", text)
            assert line is not None
            assert set(re.findall(r"`(\w+)`", line[1])) == columns(helper)
        sql = re.search(r'read_sql\("([^"]+)"', text)
        assert sql is not None
        assert con.execute(sql[1]).fetchall()[0][:2] == ("sim/small", 1)
        con.close()


def test_the_page_of_providers_has_those_of_the_program() -> None:
    """The names on OpenAI's wire, and for each key in the table its variable and host."""
    text = page("docs/providers.md")
    wire = next(line for line in text.splitlines() if line.startswith("| `openai` `groq`"))
    assert re.findall(r"`(\w+)`", wire) == list(PROVIDERS)
    told = {
        variable: line.rpartition("| ")[2].rstrip(" |")
        for line in text.partition("## Keys")[2].partition("\n## ")[0].splitlines()
        for variable in re.findall(r"`([A-Z][A-Z_]+_API_KEY)`", line)
    }
    assert len(told) >= 7
    for variable, host in told.items():
        if variable not in ("NAME_API_KEY", "AZURE_API_KEY"):
            assert host in OTHER_KEYS[variable], variable


def test_the_numbers_of_the_page_of_failures_are_the_programs() -> None:
    """Breaker, backoff, retry budget and defaults of options, as docs/when-things-fail.md gives them."""
    text = " ".join(page("docs/when-things-fail.md").split())
    options = {name: option.default for name, option in CALL_OPTIONS.items()}
    assert breaker.MIN_FAILURES == 5
    assert f"at least half of the attempts in {breaker.WINDOW_S} s" in text
    assert f"{breaker.OPEN_S:g} s, doubled each time up to {breaker.MAX_OPEN_S:g} s" in text
    assert f"up to {backoff.BASE_S} s, {2 * backoff.BASE_S} s, {4 * backoff.BASE_S:g} s ... at most {backoff.CAP_S:g} s" in text
    assert f"a fifth of the attempts of the last {backoff.WINDOW_S} s, and {backoff.RETRY_FLOOR} in any case" in text
    assert (backoff.RETRY_SHARE, SETTINGS["retry_budget_share"].default, SETTINGS["retry_budget_floor"].default) == (0.2, 0.2, 3)
    assert f"`retries` of them ({options['retries']})" in text
    assert f"`repairs` of them ({options['repairs']})" in text
    for name in ("deadline_s", "ttft_s", "idle_s"):
        assert f"| `{name}` | {options[name]:g} |" in text


def test_the_endpoint_of_the_readme_needs_no_permission() -> None:
    """Code may name any variable for any host: only files are restricted."""
    assert "Endpoint(base_url=..., api_key_env=...)" in page("README.md")
    lab = Endpoint(base_url="https://models.example.org/v1", api_key_env="LAB_KEY")
    assert key_for("lab", lab, {"LAB_KEY": "xyz"}) == "xyz"


def test_the_file_of_the_page_of_routes_loads(tmp_path: Path) -> None:
    """Its examples are one file with a route of every strategy; its plan is beside the file."""
    from nbllm.settings.strategies import STRATEGIES

    text = "\n".join(re.findall(r"```toml\n(.*?)```", page("docs/routes.md"), re.DOTALL))
    (tmp_path / "nbllm.toml").write_text(text, encoding="utf-8")
    settings = Settings.load(start=tmp_path, environ={})
    shown = {route.strategy for route in settings.routes.values() if not isinstance(route, tuple)}
    assert shown == set(STRATEGIES)
    assert getattr(settings.routes["learned"], "plan", None) == str(tmp_path / "plans/kind.json")


def test_what_the_page_of_the_panel_says_of_the_kernel_is_so() -> None:
    """How long calls are noted for a page that is yet to come; and the 2% are one caller's, with the row of many."""
    text = " ".join(page("docs/lab.md").split())
    assert f"for {EARLY_S:g} s after `%load_ext nbllm` it notes which calls are under way" in text
    claim = re.search(r"2% of an uncached call with a page that listens, for one caller\..*?\"(?P<row>[^\"]+)\"", text)
    assert claim is not None
    assert re.search(rf"^\|[^|]*{re.escape(claim['row'])} \|", page("docs/benchmarks.md"), re.MULTILINE)
