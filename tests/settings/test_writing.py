"""Settings written into a settings file: what was there stays, what is written is what was asked for, and nothing is lost."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.errors import ConfigurationError, SettingsFileError
from nbllm.settings import Settings
from nbllm.settings.writing import as_toml, changed

ON = {"semantic_cache.mode": "on", "semantic_cache.plan": "nbllm-semantic.json"}
FILE = """# ours, do not touch
ladder = ["sim/large", "sim/small"]  # best first

[semantic_cache]   # since May
mode = "shadow"    # until there is a plan
audit_share = 0.05

[endpoints.lab]
base_url = "http://127.0.0.1:8000/v1"
"""


def test_comments_and_order_stay_and_the_diff_says_what_changed(tmp_path: Path) -> None:
    """Only the lines that were asked for differ; settings read the result."""
    path = tmp_path / "nbllm.toml"
    path.write_text(FILE, encoding="utf-8")
    change = changed(ON, start=tmp_path)
    assert path.read_text(encoding="utf-8") == FILE
    change.write()
    assert path.read_text(encoding="utf-8") == FILE.replace('mode = "shadow"', 'mode = "on"').replace(
        "audit_share = 0.05\n", 'audit_share = 0.05\nplan = "nbllm-semantic.json"\n'
    )
    assert '-mode = "shadow"    # until there is a plan' in change.diff
    assert '+plan = "nbllm-semantic.json"' in change.diff
    settings = Settings.load(start=tmp_path, environ={})
    assert settings.semantic_cache.mode == "on"
    assert settings.semantic_cache.audit_share == 0.05
    assert changed(ON, start=tmp_path).diff == ""
    assert sorted(p.name for p in tmp_path.iterdir()) == ["nbllm.toml"]


def test_a_table_of_pyproject_is_written_where_it_is(tmp_path: Path) -> None:
    """[tool.nbllm] of the nearest pyproject.toml above is changed; the rest of somebody's project is not."""
    text = '[project]\nname = "x"  # mine\n\n[tool.nbllm]\ndeadline_s = 20\n\n[tool.other]\na = 1\n'
    path = tmp_path / "pyproject.toml"
    path.write_text(text, encoding="utf-8")
    below = tmp_path / "notebooks"
    below.mkdir()
    change = changed({"deadline_s": 12.5, **ON}, start=below)
    change.write()
    assert change.path == path
    read = tomllib.loads(path.read_text(encoding="utf-8"))
    assert read["tool"] == {
        "nbllm": {"deadline_s": 12.5, "semantic_cache": {"mode": "on", "plan": "nbllm-semantic.json"}},
        "other": {"a": 1},
    }
    assert "# mine" in path.read_text(encoding="utf-8")


def test_without_a_file_a_new_one_is_made(tmp_path: Path) -> None:
    """The first thing that is applied makes nbllm.toml; None takes a value out again."""
    changed({"routes.cheap": {"strategy": "learned", "labels": {"weak": "a/b.c"}, "strong_share": 0.3}}, start=tmp_path).write()
    path = tmp_path / "nbllm.toml"
    assert tomllib.loads(path.read_text())["routes"]["cheap"]["labels"] == {"weak": "a/b.c"}
    changed({"routes.cheap": {"strong_share": None}}, start=tmp_path).write()
    assert "strong_share" not in path.read_text()
    assert tomllib.loads(as_toml(ON)) == {"semantic_cache": {"mode": "on", "plan": "nbllm-semantic.json"}}


def test_a_broken_file_is_left_alone_with_its_line(tmp_path: Path) -> None:
    """A file that is no TOML is not repaired, cut or replaced: the error names the line."""
    path = tmp_path / "nbllm.toml"
    path.write_text('ladder = ["sim/small"]\nmode = "on\n', encoding="utf-8")
    with pytest.raises(SettingsFileError, match="line 2") as caught:
        changed(ON, start=tmp_path)
    assert "Correct the file" in caught.value.hint
    assert path.read_text() == 'ladder = ["sim/small"]\nmode = "on\n'


@pytest.mark.parametrize("which", ["file", "folder"])
def test_what_is_read_only_stays_so(tmp_path: Path, which: str) -> None:
    """A file or folder that its owner has made read-only is not replaced, also not by root; nothing is left beside it."""
    folder = tmp_path / "project"
    folder.mkdir()
    path = folder / "nbllm.toml"
    path.write_text(FILE, encoding="utf-8")
    change = changed(ON, start=folder)
    target, mode = (path, 0o444) if which == "file" else (folder, 0o555)
    target.chmod(mode)
    try:
        with pytest.raises(SettingsFileError, match=r"read-only\. Nothing was changed"):
            change.write()
    finally:
        folder.chmod(0o755)
    assert path.read_text(encoding="utf-8") == FILE
    assert os.listdir(folder) == ["nbllm.toml"]  # noqa: PTH208 - its hidden files too


def test_an_edit_in_between_is_not_lost(tmp_path: Path) -> None:
    """What somebody wrote while the panel was open is not overwritten; applying again takes it along."""
    path = tmp_path / "nbllm.toml"
    path.write_text(FILE, encoding="utf-8")
    change = changed(ON, start=tmp_path)
    path.write_text(FILE + "\n# and more\n", encoding="utf-8")
    with pytest.raises(SettingsFileError, match="meantime"):
        change.write()
    changed(ON, start=tmp_path).write()
    assert path.read_text().endswith("# and more\n")


@pytest.mark.parametrize(
    "values",
    [
        {"endpoints.lab": {"headers": {"Authorization": "Bearer abcdefghijklmnop0123456789"}}},
        {"semantic_cache.plan": "sk-proj-abcdefghijklmnopqrstuvwxyz0123456789ABCDEF"},
        {"endpoints.lab": {"api_key": "abc"}},
    ],
)
def test_a_key_is_never_written(tmp_path: Path, values: dict[str, Any]) -> None:
    """Neither what looks like a key nor what is called one gets into a file, nor into the error."""
    with pytest.raises(ConfigurationError, match="holds a key") as caught:
        changed(values, start=tmp_path)
    assert "0123456789" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_how_lines_end_stays(tmp_path: Path) -> None:
    """A file from Windows keeps its line ends and its mark; a link to a file stays a link; modes stay."""
    real = tmp_path / "real.toml"
    real.write_bytes(("\ufeff" + FILE.replace("\n", "\r\n")).encode())
    real.chmod(0o640)
    (tmp_path / "nbllm.toml").symlink_to(real)
    changed(ON, start=tmp_path).write()
    raw = real.read_bytes()
    assert raw.startswith(b"\xef\xbb\xbf# ours")
    assert raw.count(b"\r\n") == raw.count(b"\n") == FILE.count("\n") + 1
    assert (tmp_path / "nbllm.toml").is_symlink()
    assert real.stat().st_mode & 0o777 == 0o640


_SCALARS = st.one_of(st.booleans(), st.integers(-1000, 1000), st.text("abc #=[]\"'\\é", max_size=8))
_TABLES = st.dictionaries(st.sampled_from(["a", "b-c", "semantic_cache", "routes", "x.y"]), st.one_of(
    _SCALARS, st.lists(_SCALARS, max_size=3), st.dictionaries(st.sampled_from(["mode", "k", "q r"]), _SCALARS, max_size=3)
), max_size=4)  # fmt: skip


@given(_TABLES, st.floats(0, 1), st.text("on\"'\\ é", max_size=6))
def test_whatever_is_in_the_file_only_what_was_asked_for_changes(
    tmp_path_factory: pytest.TempPathFactory, table: dict[str, Any], share: float, plan: str
) -> None:
    """Any file either ends up with exactly the values asked for and all others as they were, or is refused unchanged."""
    import tomlkit

    folder = tmp_path_factory.mktemp("any")
    text = "# first\n" + tomlkit.dumps(table)
    (folder / "nbllm.toml").write_text(text, encoding="utf-8")
    try:
        changed({"semantic_cache.audit_share": share, "semantic_cache.plan": plan}, start=folder).write()
    except SettingsFileError:
        assert (folder / "nbllm.toml").read_text(encoding="utf-8") == text
        return
    read = tomllib.loads((folder / "nbllm.toml").read_text(encoding="utf-8"))
    before = tomllib.loads(text)
    inner = {**before.get("semantic_cache", {}), "audit_share": share, "plan": plan}
    assert read == {**before, "semantic_cache": inner}
    assert (folder / "nbllm.toml").read_text(encoding="utf-8").startswith("# first\n")
