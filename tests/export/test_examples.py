"""Recorded runs that travel, and files that do: only what was asked for, redacted, and listed in any case."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

import nbllm
from nbllm.core.ports import Recording
from nbllm.redaction import register_secret
from nbllm.testing import FakeProvider
from tests.client.helpers import fake_client
from tests.export.exporting import NOTEBOOK, exported, refused, tree
from tests.export.making import HEAD, run

SECRET = "sk-proj-" + "a1B2" * 12
CODE = "\n".join(source for source in NOTEBOOK if not source.startswith("%"))
ANSWER = '{"urgent": true, "topic": "fire"}'


@pytest.fixture
def recordings(tmp_path: Path) -> Sequence[Recording]:
    """Two runs of the notebook's flow, as a session keeps them."""
    fake = FakeProvider("facts 1", ANSWER, "facts 2", ANSWER)
    with fake_client(tmp_path / "home", fake, recordings=True, cache="off", model="sim/large") as client, nbllm.use(client):
        flow = run(CODE)["triage"]
        flow("It burns.")
        flow(f"My key is {SECRET}.", lang="de")
        return tuple(client.recordings.newest(10))


def ids(recordings: Sequence[Recording]) -> list[str]:
    """The runs' ids, oldest first."""
    return list(dict.fromkeys(str(r.flow["run"]) for r in sorted(recordings, key=lambda r: r.started_at) if r.flow is not None))


def test_nothing_recorded_travels_unasked(tmp_path: Path, recordings: Sequence[Recording]) -> None:
    """Without --examples no text of a recording is anywhere in the export; the runs are listed, and the newest proves the slice."""
    done = exported(tmp_path / "app", recordings=recordings)
    everything = b"".join(tree(done.out).values())
    assert b"It burns" not in everything
    assert b"facts 1" not in everything
    assert (done.examples, done.proof.runs) == (0, 1)
    assert any(ids(recordings)[0] in note and "--examples" in note for note in done.notes)


def test_a_key_that_became_known_after_the_run_does_not_travel(tmp_path: Path) -> None:
    """A recording is redacted when it is made, and once more when it travels: what has been registered since is masked then."""
    word = "marigold-harbour-17"
    cells = [HEAD, "@flow\ndef greet(name: str) -> str:\n    return ask('Greet ' + name).text"]
    with fake_client(tmp_path / "home", FakeProvider("fine"), recordings=True, cache="off") as client, nbllm.use(client):
        run("\n".join(cells))["greet"](word)
        recorded = tuple(client.recordings.newest(10))
    register_secret(word)
    done = exported(tmp_path / "app", *cells, flow="greet", recordings=recorded, examples=["all"])
    assert done.examples == 1
    assert word.encode() not in b"".join(tree(done.out).values())


def test_picked_runs_travel_redacted_with_their_results(tmp_path: Path, recordings: Sequence[Recording]) -> None:
    """Arguments, result and calls in the form that the service reads; what looks like a key is masked."""
    done = exported(tmp_path / "app", recordings=recordings, examples=["all"])
    text = tree(done.out)["examples.json"].decode()
    told = json.loads(text)
    assert SECRET not in text
    assert [one["flow"] for one in told] == ["triage", "triage"]
    assert told[0]["arguments"] == {"ticket": "It burns.", "lang": "en"}
    assert told[0]["result"] == {"urgent": True, "topic": "fire"}
    assert [(c["rung"], c["model"], c["text"]) for c in told[0]["calls"]] == [
        ("sim/large", "large", "facts 1"), ("sim/large", "large", ANSWER),
    ]  # fmt: skip
    assert done.proof.runs == 2
    assert 'examples=HERE / "examples.json"' in tree(done.out)["app.py"].decode()
    assert exported(tmp_path / "app", recordings=recordings, examples=["all"]).written == ()


def test_which_ones_are_picked(tmp_path: Path, recordings: Sequence[Recording]) -> None:
    """A number, an id or its beginning; one that is none of these is refused with what there is."""
    first, second = ids(recordings)
    for number, (words, count) in enumerate({("1",): 1, (first,): 1, (first[:6], second): 2, ("99",): 2}.items()):
        assert exported(tmp_path / f"app{number}", recordings=recordings, examples=words, proved=False).examples == count
    error = refused(tmp_path / "no", recordings=recordings, examples=["zzzz", "0"])
    assert [r.kind for r in error.refusals] == ["example", "example"]
    assert first in str(error)


def test_a_changed_prompt_is_refused(tmp_path: Path, recordings: Sequence[Recording]) -> None:
    """What the newest run asked when it was recorded must be what the slice asks."""
    changed = [source.replace("List the facts", "Name the facts") for source in NOTEBOOK]
    error = refused(tmp_path / "app", *changed, recordings=recordings)
    assert [r.kind for r in error.refusals] == ["proof"]
    assert "Run the flow once more" in str(error)


def test_the_recorded_model_is_the_services(tmp_path: Path, recordings: Sequence[Recording]) -> None:
    """Where no model is configured, settings.toml names the one that answered, and says so."""
    done = exported(tmp_path / "app", *[s for s in NOTEBOOK if not s.startswith("%")], recordings=recordings)
    assert b'model = "sim/large"' in tree(done.out)["settings.toml"]
    assert any("sim/large" in note for note in done.notes)


READS = "from pathlib import Path\nrules = Path({!r}).read_text()"
USES = "@flow\ndef triage(t: str) -> str:\n    return ask(rules + t, model='sim/small').text"


def test_files_travel_only_when_asked_for(tmp_path: Path) -> None:
    """Without --include the file is named, with the cell, and since the module cannot do without it nothing is written."""
    (tmp_path / "rules.txt").write_text("short", encoding="utf-8")
    error = refused(tmp_path / "app", HEAD, READS.format("rules.txt"), USES, folder=tmp_path)
    assert [r.kind for r in error.refusals] == ["proof"]
    assert "--include rules.txt" in str(error)


def test_files_beside_a_module_of_the_notebook(tmp_path: Path) -> None:
    """A module that reads a text beside itself: the text is named as --include takes it, and lies beside the module then."""
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "rules.txt").write_text("short", encoding="utf-8")
    code = "from pathlib import Path\nrules = (Path(__file__).parent / 'rules.txt').read_text()"
    (tmp_path / "prompts" / "__init__.py").write_text(code, encoding="utf-8")
    sources = (HEAD, "from prompts import rules", USES)
    assert "--include prompts/rules.txt" in str(refused(tmp_path / "app", *sources, folder=tmp_path))
    done = exported(tmp_path / "app", *sources, folder=tmp_path, include=["prompts/rules.txt"])
    assert tree(done.out)["prompts/rules.txt"] == b"short"


@pytest.mark.parametrize(
    ("path", "place", "line"),
    [("rules.txt", "data/rules.txt", 'os.chdir(HERE / "data")'), ("data/in/rules.txt", "data/in/rules.txt", "os.chdir(HERE)")],
)
def test_files_that_are_asked_for_are_where_the_flow_looks(tmp_path: Path, path: str, place: str, line: str) -> None:
    """In data/, with the app's working folder so that the flow's own paths lead there: the module is imported with them."""
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_bytes(b"short")
    done = exported(tmp_path / "app", HEAD, READS.format(path), USES, folder=tmp_path, include=[path])
    found = tree(done.out)
    assert found[place] == b"short"
    assert line in found["app.py"].decode()
    assert any(place in note for note in done.notes)
    assert not any("not part" in note for note in done.notes)
    assert "COPY data/ data/" in found["Dockerfile"].decode()


def test_a_file_that_is_read_later_is_listed(tmp_path: Path) -> None:
    """Read when the flow runs: no reason to refuse, but told, with its cell."""
    done = exported(
        tmp_path / "app", HEAD, "@flow\ndef triage(t: str) -> str:\n    return ask(open('late.txt').read(), model='sim/small').text"
    )
    assert [note for note in done.notes if "Cell 2, line 3 reads the file 'late.txt'" in note]


def test_large_constants_are_listed(tmp_path: Path) -> None:
    """A literal of many kB is in flows.py and is told, with its cell, name and size."""
    done = exported(tmp_path / "app", HEAD, f"rules = {'x' * 30_000!r}", USES, proved=False)
    assert [note for note in done.notes if note.startswith("Cell 2: rules is a constant of 30 kB")]


@pytest.mark.parametrize("path", ["../up.txt", "/etc/hostname", "missing.txt", "link.txt", "secret.txt", ".."])
def test_files_that_do_not_travel(tmp_path: Path, path: str) -> None:
    """Outside of the notebook's folder, missing, a link out of it, or with a key in it: refused by name."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    (tmp_path / "up.txt").write_text("up", encoding="utf-8")
    (folder / "link.txt").symlink_to(tmp_path / "up.txt")
    (folder / "secret.txt").write_text(SECRET, encoding="utf-8")
    error = refused(tmp_path / "app", folder=folder, include=[path])
    assert [r.kind for r in error.refusals] == ["file"]
    assert SECRET not in str(error)


def test_constants_travel_when_asked_for_by_name(tmp_path: Path) -> None:
    """A literal moves to data/ as JSON and the code reads it there: same value, nothing else in the code is touched."""
    value = {"rules": ["ä", '"', "x" * 30_000], "n": [1, 2.5, True, None]}
    code = f"# before\nrules: dict = (\n    {value!r}  # inside\n); other = 1  # behind"
    use = "@flow\ndef triage(t: str) -> str:\n    return ask(rules['rules'][0] + t, model='sim/small').text"
    done = exported(tmp_path / "app", HEAD, code, use, include=["rules"])
    found = tree(done.out)
    assert json.loads(found["data/rules.json"]) == value
    text = found["flows.py"].decode()
    assert 'rules: dict = (\n    stored_constant("data/rules.json")  # inside\n)\nother = 1  # behind' in text
    assert "from nbllm.flow_context import stored_constant" in text
    assert "os.chdir(HERE)" in found["app.py"].decode()
    assert not any("constant of" in note for note in done.notes)
    assert exported(tmp_path / "app", HEAD, code, use, include=["rules"], proved=False).written == ()


NO_JSON = ["(1, 2)", "{1: 2}", "{'a', 'b'}", "b'x'", "f'{1}'", "len('x')", "[1e999, 'x']", "-0.0, "]


@pytest.mark.parametrize("code", [f"rules = {value}" for value in NO_JSON])
def test_constants_that_json_would_change_are_refused(code: str, tmp_path: Path) -> None:
    """Tuples, sets, bytes, keys that are no texts, infinities and what is no literal: by cell."""
    use = "@flow\ndef triage(t: str) -> str:\n    return ask(f'{rules}{t}', model='sim/small').text"
    error = refused(tmp_path / "app", HEAD, code, use, include=["rules"], folder=tmp_path)
    assert [(r.kind, r.cell) for r in error.refusals] == [("file", 2)]


def test_the_readers_name_gives_way(tmp_path: Path) -> None:
    """A notebook that has the name for something of its own keeps it."""
    use = "@flow\ndef triage(t: str) -> str:\n    return ask(f'{a}{b}{stored_constant}{t}', model='sim/small').text"
    done = exported(tmp_path / "app", HEAD, "stored_constant = 3\na = [1]\nb = [2]", use, include=["a", "b"])
    text = tree(done.out)["flows.py"].decode()
    assert 'a = _stored_constant("data/a.json")\nb = _stored_constant("data/b.json")' in text
    assert text.count("import stored_constant as _stored_constant") == 1
