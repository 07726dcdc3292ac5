"""The command `nbllm`, run as a user runs it, against homes that are well and homes that are not."""

from __future__ import annotations

import errno
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from nbllm import Client
from nbllm.cli import main
from nbllm.cli.cache import duration_s
from nbllm.cli.checks import Finding
from nbllm.cli.demo import use_model
from nbllm.cli.paper import Paper, age, size
from nbllm.errors import ConfigurationError, HomeUnusable, InvalidRequest


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home that is not there yet, an empty folder to work in, and no key."""
    for name in list(os.environ):
        if name.startswith("NBLLM_") or name.endswith(("_KEY", "_TOKEN")):
            monkeypatch.delenv(name)
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("NBLLM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NBLLM_SIM_SPEED", "0")
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path / "home"


@pytest.fixture
def used(home: Path) -> Path:
    """A home with one call and one hit."""
    with Client(home=home) as client:
        for _ in range(2):
            client.ask("Summarise: The cat sat on the mat. It was warm.", model="sim/small", tags=["pets"])
    return home


def report(capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    """Run doctor --json and return exit code and report."""
    code = main(["doctor", "--json"])
    return code, json.loads(capsys.readouterr().out)


def found(answer: dict[str, Any], area: str) -> str:
    """Return the texts of an area."""
    return "\n".join(f"{one['status']}: {one['text']} {one['hint']}" for one in answer["findings"] if one["area"] == area)


def test_doctor_on_a_new_machine_finds_nothing_wrong_and_makes_nothing(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    """Without any set-up the doctor says that the simulated model answers, exits 0, and does not create the home."""
    code, answer = report(capsys)
    assert code == 0
    assert answer["ok"]
    assert "made by the first call" in found(answer, "home")
    assert "none set" in found(answer, "keys")
    assert not home.exists()


def test_doctor_counts_what_is_in_the_home(capsys: pytest.CaptureFixture[str], used: Path) -> None:
    """Calls, cost and stored answers of a used home are named."""
    code, answer = report(capsys)
    assert code == 0
    assert re.search(r"ledger: 2 calls, \$0\.0+\d+ simulated, ", found(answer, "home")), "nobody was billed for it"
    assert "cache: 1 answer" in found(answer, "home")


def test_doctor_names_keys_and_never_shows_them(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A key is reported by the name of its variable; its value is nowhere in the output, in either form."""
    secret = "zq7-plain-words-that-have-no-shape"
    monkeypatch.setenv("OPENAI_API_KEY", secret)
    _, answer = report(capsys)
    assert "OPENAI_API_KEY (openai)" in found(answer, "keys")
    main(["doctor"])
    assert secret not in capsys.readouterr().out + json.dumps(answer)


def test_doctor_notes_an_empty_variable(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty key is a common mistake, so it is named."""
    monkeypatch.setenv("GROQ_API_KEY", " ")
    _, answer = report(capsys)
    assert "set but empty: GROQ_API_KEY" in found(answer, "keys")


def test_doctor_names_file_and_line_of_a_typo_and_exits_1(capsys: pytest.CaptureFixture[str]) -> None:
    """A settings file with a typo is broken, with its line, and the other checks still run."""
    Path("nbllm.toml").write_text('model = "sim/small"\ndeadlin_s = 3\n', encoding="utf-8")
    code, answer = report(capsys)
    assert code == 1
    assert "nbllm.toml, line 2" in found(answer, "settings")
    assert "deadline_s" in found(answer, "settings")
    assert found(answer, "packages")


@pytest.mark.parametrize("variable", ["", "NBLLM_DEADLINE_S"])
def test_doctor_looks_at_the_home_that_is_meant_though_a_setting_is_bad(
    capsys: pytest.CaptureFixture[str], used: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """With a typo in the file, and with a bad variable too, NBLLM_HOME is still the folder that is looked at."""
    Path("nbllm.toml").write_text("deadlin_s = 3\n", encoding="utf-8")
    if variable:
        monkeypatch.setenv(variable, "soon")
    code, answer = report(capsys)
    assert code == 1
    assert str(used) in found(answer, "home")
    assert "NBLLM_HOME" in found(answer, "settings") or "NBLLM_*" in found(answer, "settings")


def test_doctor_asks_the_catalog_for_each_model_that_is_set(capsys: pytest.CaptureFixture[str]) -> None:
    """A route or ladder that names an endpoint which does not exist is broken, with its line; one that exists is fine."""
    Path("nbllm.toml").write_text(
        'ladder = ["cheap", "sim/smal"]\n[routes]\ncheap = ["nolab/qwen", "sim/small"]\ngood = ["sim/large"]\n', encoding="utf-8"
    )
    code, answer = report(capsys)
    assert code == 1
    assert "routes.cheap (nbllm.toml:3): 'nolab/qwen'" in found(answer, "models")
    assert "ladder (nbllm.toml:1): There is no simulated model" in found(answer, "models")
    assert "ok: routes.good: sim/large" in found(answer, "models")
    assert "ladder (nbllm.toml:1): 'cheap'" not in found(answer, "models")


def test_doctor_reports_an_endpoint_whose_key_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    """An endpoint that names an unset variable is broken, and the variable is named."""
    Path("nbllm.toml").write_text(
        '[endpoints.lab]\nbase_url = "http://127.0.0.1:9/v1"\napi_key_env = "LAB_KEY_X"\n', encoding="utf-8"
    )
    code, answer = report(capsys)
    assert code == 1
    assert "LAB_KEY_X" in found(answer, "endpoints")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a folder in which nobody can make one, root included")
def test_doctor_tries_whether_a_home_can_be_made(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A home that the first call cannot make is broken, in the words of that call's own error, whoever asks."""
    monkeypatch.setenv("NBLLM_HOME", "/proc/nbllm/home")
    with pytest.raises(HomeUnusable) as refused, Client() as client:
        client.ask("Name a river.", model="sim/small")
    code, answer = report(capsys)
    assert code == 1
    assert refused.value.summary in found(answer, "home")
    assert "NBLLM_HOME to a folder of your own" in found(answer, "home")
    assert "made by the first call" not in found(answer, "home")


@pytest.mark.parametrize("failing", ["mkdir", "open"])
def test_doctor_leaves_nothing_of_a_home_that_it_tried_to_make(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    """Whether it went well or stopped half-way, the folders above the home that were not there are gone again."""
    monkeypatch.setenv("NBLLM_HOME", str(tmp_path / "some" / "where" / "home"))
    code, answer = report(capsys)
    assert code == 0
    assert "made by the first call" in found(answer, "home")
    assert not (tmp_path / "some").exists()
    real = getattr(os, failing)

    def full(path: Any, *args: Any, **kwargs: Any) -> Any:
        if "some" in str(path) and (failing == "open" or str(path).endswith("home")):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, failing, full)
    code, answer = report(capsys)
    assert code == 1
    assert "is on a full disk" in found(answer, "home")
    assert not (tmp_path / "some").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
def test_doctor_refuses_a_home_behind_a_link(capsys: pytest.CaptureFixture[str], home: Path, tmp_path: Path) -> None:
    """A home that is a symbolic link is broken, with what to do."""
    (tmp_path / "elsewhere").mkdir()
    home.symlink_to(tmp_path / "elsewhere")
    code, answer = report(capsys)
    assert code == 1
    assert "symbolic link" in found(answer, "home")
    assert "NBLLM_HOME" in found(answer, "home")


def test_doctor_survives_a_ledger_that_is_no_database(capsys: pytest.CaptureFixture[str], used: Path) -> None:
    """Bytes that are no SQLite file are reported in words, not as a traceback."""
    for leftover in used.glob("ledger.db-*"):
        leftover.unlink()
    (used / "ledger.db").write_bytes(b"not a database at all" * 500)
    _, answer = report(capsys)
    assert "ledger" in found(answer, "home")
    assert "Traceback" not in json.dumps(answer)


def test_doctor_reports_a_package_below_its_floor(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A version that the bounds shut out, such as a poisoned release of litellm, is broken and says how to repair it."""
    import importlib.metadata

    real = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.82.7" if name == "litellm" else real(name))
    code, answer = report(capsys)
    assert code == 1
    assert "litellm 1.82.7 is installed" in found(answer, "packages")
    assert 'pip install "litellm' in found(answer, "packages")


def test_a_check_that_fails_itself_is_a_finding(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The doctor's own mistake is reported beside what the other checks found."""
    from nbllm.cli import checks

    def bad(_: object) -> list[Finding]:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(checks, "keys", bad)
    code, answer = report(capsys)
    assert code == 1
    assert "ZeroDivisionError" in found(answer, "keys")
    assert found(answer, "packages")


@pytest.mark.parametrize("command", [["doctor"], ["cache"], ["cache", "list"], ["--help"], ["doctor", "--help"]])
def test_everything_fits_80_columns_without_colour(capsys: pytest.CaptureFixture[str], used: Path, command: list[str]) -> None:
    """No line of any command is over 80 columns, and where nobody watches there are no escape codes."""
    if "--help" in command:
        with pytest.raises(SystemExit):
            main(command)
    else:
        main(command)
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if len(line) > 80 and str(used) not in line] == []
    assert not any("\033" in line for line in lines)


def test_no_color_is_respected_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_COLOR switches colour off where a terminal would have had it."""

    class Terminal:
        encoding = "utf-8"

        def isatty(self) -> bool:
            return True

        def write(self, text: str) -> int:
            return len(text)

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\033" in Paper(Terminal()).sign("ok")  # type: ignore[arg-type]  # enough of a stream
    monkeypatch.setenv("NO_COLOR", "1")
    assert Paper(Terminal()).sign("ok") == "✓"  # type: ignore[arg-type]  # enough of a stream


def test_a_status_is_a_word_where_signs_cannot_be_written() -> None:
    """On a terminal without Unicode the signs are words, so that meaning never hangs on one character."""

    class Ascii:
        encoding = "ascii"

        def isatty(self) -> bool:
            return False

    assert Paper(Ascii()).sign("broken") == "[broken]"  # type: ignore[arg-type]  # enough of a stream


def test_cache_says_what_is_stored_and_what_it_saved(capsys: pytest.CaptureFixture[str], used: Path) -> None:
    """`nbllm cache` counts entries and hits; `list` shows each entry with its model and tags."""
    assert main(["cache"]) == 0
    text = capsys.readouterr().out
    assert "1 answer in" in text
    assert re.search(r"1 hit in 2 calls, 50%; they saved \$0\.0", text)
    assert main(["cache", "list"]) == 0
    assert "sim/small #pets" in capsys.readouterr().out


def test_purge_needs_a_choice_and_deletes_only_that(capsys: pytest.CaptureFixture[str], used: Path) -> None:
    """Purging without saying what is refused; with another tag nothing goes, with the right one the entry does."""
    assert main(["cache", "purge"]) == 1
    assert "Say which entries" in capsys.readouterr().err
    for tag, count in (("cars", "0 entries"), ("pets", "1 entry")):
        assert main(["cache", "purge", "--tag", tag]) == 0
        assert f"{count} deleted" in capsys.readouterr().out
    main(["cache", "list"])
    assert "empty" in capsys.readouterr().out


def test_cache_without_a_home_says_so_and_makes_none(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    """Looking does not create anything."""
    assert main(["cache"]) == 0
    assert "Nothing is stored yet" in capsys.readouterr().out
    assert not home.exists()


def test_no_command_is_help_and_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    """`nbllm` alone shows what there is."""
    assert main([]) == 2
    assert "doctor" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("10m", 600), ("1.5h", 5400), ("7d", 604800), ("2w", 1209600)]
)
def test_lengths_of_time_are_read(text: str, seconds: float) -> None:
    """Seconds, minutes, hours, days and weeks are understood."""
    assert duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-3d", "3y", "nan", "1e9d"])
def test_other_lengths_of_time_are_refused(text: str) -> None:
    """Anything else is an error that names the text."""
    with pytest.raises(InvalidRequest):
        duration_s(text)


def test_numbers_read_well() -> None:
    """Bytes and ages have the unit that fits."""
    assert [size(n) for n in (0, 999, 1000, 1_500_000, 2_000_000_000)] == ["0 B", "999 B", "1.0 kB", "1.5 MB", "2.0 GB"]
    assert [age(n) for n in (-1, 59, 60, 7200, 200_000)] == ["0 s", "59 s", "1 min", "2 h", "2 d"]


def test_demo_model_replaces_every_simulated_one_in_code_and_says_so() -> None:
    """`--model` changes the names in code cells, faults included, leaves text alone, and is noted at the top."""
    import nbformat

    notebook = nbformat.v4.new_notebook()
    notebook.cells = [
        nbformat.v4.new_markdown_cell("about sim/large"),
        nbformat.v4.new_code_cell('%%llm -m sim/large?fault=429&seed=1 -o x\nask("hi", model="sim/small")'),
    ]
    use_model(notebook, "openai/gpt-4o-mini")
    assert "--model openai/gpt-4o-mini" in notebook.cells[0].source
    assert notebook.cells[1].source == "about sim/large"
    assert notebook.cells[2].source == '%%llm -m openai/gpt-4o-mini -o x\nask("hi", model="openai/gpt-4o-mini")'


def test_demo_refuses_a_model_that_is_no_id() -> None:
    """A name without provider is refused before a kernel starts."""
    import nbformat

    with pytest.raises(ConfigurationError, match="no model id"):
        use_model(nbformat.v4.new_notebook(), "gpt")


def test_demo_runs_the_tour_twice_and_the_second_time_is_free(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    """`nbllm demo` executes the quickstart, says where the result is and what it cost; again it costs $0.00."""
    assert main(["demo"]) == 0
    first = capsys.readouterr().out
    assert main(["demo", "--out", "again/tour.ipynb"]) == 0
    second = capsys.readouterr().out
    assert f"Open it:  jupyter lab {Path('build') / 'demo' / '00_quickstart.ipynb'}" in first, "there is no make lab here"
    assert "Open it:  jupyter lab again/tour.ipynb" in second
    assert "nothing was really spent" in first
    assert "$0.00 for" not in first
    assert "$0.00 for" in second
    assert "simulated" in Path("again/tour.ipynb").read_text(encoding="utf-8")
    assert Path("again/data/origin_of_species.txt").exists()


def test_demo_that_fails_says_why_and_exits_1(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    """Without a key for the model that was asked for, the demo ends with the error's own words and a next step."""
    assert main(["demo", "--model", "openai/gpt-4o-mini"]) == 1
    said = capsys.readouterr().err
    assert "OPENAI_API_KEY" in said
    assert "Nothing was sent" in said
