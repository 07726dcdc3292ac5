"""Names of models in settings: what cannot be meant is refused where it is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from nbllm import Client, Settings
from nbllm.errors import ConfigurationError, SettingsFileError


def loaded(tmp_path: Path, text: str, **variables: str) -> Settings:
    (tmp_path / "nbllm.toml").write_text(text, encoding="utf-8")
    return Settings.load(start=tmp_path, environ=variables)


@pytest.mark.parametrize(
    ("text", "line", "name"),
    [
        ('model = "simsmall"', 1, "simsmall"),
        ('deadline_s = 3\nladder = ["sim/small", "chepa"]\n[routes]\ncheap = ["sim/small"]', 2, "chepa"),
        ('[routes]\ncheap = ["qwen"]', 2, "qwen"),
        ('model = "sim/"', 1, "sim/"),
    ],
)
def test_a_file_that_names_no_model_is_refused_with_its_line(tmp_path: Path, text: str, line: int, name: str) -> None:
    """A name without a slash that is no route is an error of the file, not of the first call."""
    with pytest.raises(SettingsFileError, match=f"{name!r}, which is no model id") as caught:
        loaded(tmp_path, text)
    assert caught.value.line == line
    assert "provider/model" in caught.value.hint


def test_the_nearest_name_is_offered(tmp_path: Path) -> None:
    """A slip of the pen gets the name that was meant."""
    with pytest.raises(SettingsFileError, match="Did you mean sim/small"):
        loaded(tmp_path, 'model = "simsmall"')
    with pytest.raises(SettingsFileError, match="Did you mean cheap"):
        loaded(tmp_path, 'model = "chaep"\n[routes]\ncheap = ["sim/small"]')


def test_a_variable_and_code_are_held_to_the_same(tmp_path: Path) -> None:
    """NBLLM_MODEL and Client(...) are refused by name; what they change stays as it was."""
    with pytest.raises(ConfigurationError, match="NBLLM_LADDER: ladder names 'qwen'"):
        loaded(tmp_path, "", NBLLM_LADDER="sim/small,qwen")
    with pytest.raises(ConfigurationError, match=r"Client\(...\): ladder names 'simsmall'"):
        Client(settings=Settings(), ladder=["simsmall"])
    client = Client(settings=loaded(tmp_path, 'model = "cheap"\n[routes]\ncheap = ["sim/small"]'))
    with pytest.raises(ConfigurationError, match="model names 'cheap'"):
        client.configure(**{"routes.cheap": None})
    assert client.settings.routes["cheap"] == ("sim/small",)


def test_a_ladder_of_one_may_be_a_text(tmp_path: Path) -> None:
    """Client(ladder="sim/small") is a ladder of one model, not of nine letters; a route is a name too."""
    assert Client(settings=Settings(), ladder="sim/small").settings.ladder == ("sim/small",)
    settings = loaded(tmp_path, 'model = "cheap"\n[routes]\ncheap = ["sim/small"]')
    assert settings.model == "cheap"
    assert Client(settings=settings, ladder=("cheap", "sim/large")).settings.ladder == ("cheap", "sim/large")
