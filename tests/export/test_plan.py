"""Writing an export: as one, into the right folder only, with what the user changed kept."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.export import ExportError
from nbllm.export.plan import Plan, Written, write
from nbllm.export.target import MANIFEST, app_name
from tests.export.exporting import tree

FILES = {"a.txt": b"a", "b/c.txt": b"c"}


def put(out: Path, files: dict[str, bytes], *, force: bool = False) -> Written:
    """Write a plan of these files."""
    return write(Plan(files), out, {"made_by": "a test"}, force=force)


def test_a_new_folder_gets_everything_at_once(tmp_path: Path) -> None:
    """Files, and what the export remembers of them; no trace of how it was done."""
    assert put(tmp_path / "x" / "app", FILES).written == ("a.txt", "b/c.txt")
    found = tree(tmp_path / "x" / "app")
    assert {name: found[name] for name in FILES} == FILES
    assert set(json.loads(found[MANIFEST])["files"]) == set(FILES)
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["app"]


def test_a_second_time_changes_nothing(tmp_path: Path) -> None:
    """The same plan gives the same bytes, the manifest's too, and says that nothing was written."""
    put(tmp_path / "app", FILES)
    before = tree(tmp_path / "app")
    assert put(tmp_path / "app", FILES) == Written(same=("a.txt", "b/c.txt"))
    assert tree(tmp_path / "app") == before


def test_what_the_user_changed_or_deleted_is_kept_and_said(tmp_path: Path) -> None:
    """A changed file and a deleted one stay so through any number of exports; force takes them back; own files stay."""
    out = tmp_path / "app"
    put(out, {**FILES, "d": b"d", "e": b"e"})
    (out / "a.txt").write_bytes(b"mine")
    (out / "d").unlink()
    (out / "own").write_bytes(b"own")
    for _ in range(2):
        done = put(out, {"a.txt": b"a2", "b/c.txt": b"c2", "d": b"d2", "f": b"f"})
        assert done.kept == ("a.txt", "d")
        assert (out / "a.txt").read_bytes() == b"mine"
        assert not (out / "d").exists()
    assert not (out / "e").exists()
    assert tree(out)["b/c.txt"] == b"c2"
    assert put(out, {"a.txt": b"a3", "d": b"d3"}, force=True).written == ("a.txt", "d")
    assert {n: b for n, b in tree(out).items() if n != MANIFEST} == {"a.txt": b"a3", "d": b"d3", "own": b"own"}


@given(st.lists(st.dictionaries(st.sampled_from("abcd"), st.sampled_from([b"1", b"2", b"3"])), min_size=2, max_size=4), st.data())
def test_no_change_of_the_user_is_ever_lost(tmp_path_factory: pytest.TempPathFactory, plans: list[dict[str, bytes]],
                                            data: st.DataObject) -> None:  # fmt: skip
    """Whatever plans follow each other: what the user wrote is there at the end, and everything else is as the last plan says."""
    out = tmp_path_factory.mktemp("x") / "app"
    mine: dict[str, bytes] = {}
    for plan in plans:
        put(out, plan)
        for name in data.draw(st.sets(st.sampled_from("abcd"), max_size=2)):
            (out / name).write_bytes(b"mine")
            mine[name] = b"mine"
    done = put(out, plans[-1])
    found = {name: bytes_ for name, bytes_ in tree(out).items() if name != MANIFEST}
    assert found == {**plans[-1], **mine}
    assert set(mine) & set(plans[-1]) <= set(done.kept) <= set(mine)


def test_a_crash_in_the_middle_leaves_a_folder_that_is_still_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the files new: the next export takes none of them for the user's."""
    out = tmp_path / "app"
    put(out, {"a": b"1", "b": b"1", "c": b"1"})
    real = Path.replace

    def failing(self: Path, target: Path) -> Path:
        if self.name == "b":
            raise OSError(28, "No space left on device")
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", failing)
        with pytest.raises(ExportError, match="disk full"):
            put(out, {"a": b"2", "b": b"2", "c": b"2"})
    assert tree(out)["a"] == b"2"
    assert put(out, {"a": b"3", "b": b"3", "c": b"3"}).kept == ()
    assert {n: b for n, b in tree(out).items() if n != MANIFEST} == {"a": b"3", "b": b"3", "c": b"3"}


def test_folders_that_are_refused(tmp_path: Path) -> None:
    """One that holds something else, a file, a link: a clear error, and nothing is written."""
    full = tmp_path / "full"
    full.mkdir()
    (full / "x").write_bytes(b"x")
    (tmp_path / "link").symlink_to(full)
    for out, why in ((full, "not empty"), (full / "x", "no folder"), (tmp_path / "link", "no folder")):
        with pytest.raises(ExportError, match=why):
            put(out, FILES)
        with pytest.raises(ExportError, match=why):
            put(out, FILES, force=True)
    assert tree(full) == {"x": b"x"}


def test_a_damaged_manifest_is_no_licence_to_overwrite(tmp_path: Path) -> None:
    """Without knowing which files are whose, nothing is written."""
    out = tmp_path / "app"
    put(out, FILES)
    for text in ("", "[]", "{}", '{"files": 3}', "\xff"):
        (out / MANIFEST).write_bytes(text.encode("latin-1"))
        with pytest.raises(ExportError, match="cannot be read"):
            put(out, {"a.txt": b"new"})
    assert tree(out)["a.txt"] == b"a"


def test_nothing_is_written_or_deleted_outside(tmp_path: Path) -> None:
    """Links in the folder, paths of a plan and paths of an edited manifest lead nowhere else."""
    out = tmp_path / "app"
    put(out, FILES)
    (tmp_path / "victim").write_bytes(b"v")
    (tmp_path / "away").mkdir()
    told = json.loads((out / MANIFEST).read_text())
    told["files"]["../victim"] = "4c94485e0c21ae6c41ce1dfe7b6bfaceea5ab68e40a2476f50208e526f506080"
    (out / MANIFEST).write_text(json.dumps(told))
    put(out, {"a.txt": b"a"})
    assert (tmp_path / "victim").read_bytes() == b"v"
    (out / "b").symlink_to(tmp_path / "away")
    with pytest.raises(ExportError, match="link"):
        put(out, FILES)
    assert tree(tmp_path / "away") == {}
    for path in ("../x", "/x", "a/../../x", "a\\..\\x", "c:x", "", "x\0y", MANIFEST):
        with pytest.raises(ExportError, match="no place"):
            Plan({path: b""})


def git(folder: Path, *words: str) -> None:
    """Run git in a folder."""
    subprocess.run(
        ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *words], cwd=folder, check=True, capture_output=True
    )


@pytest.mark.skipif(shutil.which("git") is None, reason="no git")
def test_a_git_repository_with_changes_is_refused(tmp_path: Path) -> None:
    """Changes that are not committed stop an export; what an export itself left uncommitted, and files of others, do not."""
    out = tmp_path / "repo" / "app"
    out.mkdir(parents=True)
    git(tmp_path / "repo", "init")
    (tmp_path / "repo" / "notes").write_bytes(b"not the app's")
    put(out, FILES)
    put(out, {**FILES, "a.txt": b"a2"})
    git(tmp_path / "repo", "add", "app")
    git(tmp_path / "repo", "commit", "-m", "app")
    (out / "untracked").write_bytes(b"u")
    put(out, {**FILES, "a.txt": b"a3"})
    git(tmp_path / "repo", "commit", "-am", "app")
    (out / "a.txt").write_bytes(b"mine")
    before = tree(out)
    with pytest.raises(ExportError, match=r"not committed: a\.txt"):
        put(out, FILES)
    assert tree(out) == before
    git(tmp_path / "repo", "commit", "-am", "mine")
    assert put(out, FILES).kept == ("a.txt",)
    assert put(out, FILES, force=True).written == ("a.txt",)


@pytest.mark.skipif(shutil.which("git") is None, reason="no git")
def test_an_empty_repository_is_an_empty_folder(tmp_path: Path) -> None:
    """`git init` first is fine; its .git stays."""
    out = tmp_path / "app"
    out.mkdir()
    git(out, "init")
    put(out, FILES)
    assert (out / ".git" / "HEAD").is_file()
    assert (out / "b" / "c.txt").read_bytes() == b"c"


@pytest.mark.parametrize(
    "name", ["..", ".hidden", "-x", "x y", "x'", 'x"', "é", "x\n", "$(x)", "a" * 64, "con", "NUL.txt", "x;y", "x-"]
)
def test_folder_names_that_no_app_can_have(tmp_path: Path, name: str) -> None:
    """The folder's name becomes the app's in containers and clusters: others are refused."""
    with pytest.raises(ExportError, match="no name that an app can have"):
        app_name(Path(f"{tmp_path}/{name}"))


def test_names_of_apps() -> None:
    """They fit a cluster's names: lower case, digits, dashes."""
    names = [app_name(Path("x") / name) for name in ("support_app", "Support.App", "a", "A1__b")]
    assert names == ["support-app", "support-app", "a", "a1-b"]
