"""What an app that runs below a notebook is told of the notebook's model servers."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from nbllm import Endpoint
from nbllm.notebook.app_keys import engine_variables

FILE = """
model = "vllm/qwen"
[endpoints.vllm]
base_url = "{url}"
api_key_env = "VLLM_KEY"
"""


@pytest.mark.parametrize(
    ("url", "environ", "moved"),
    [
        ("http://127.0.0.1:4567/v1", {}, True),
        ("http://localhost:4567/v1", {}, True),
        ("http://127.0.0.1:9999/v1", {}, False),
        ("http://vllm.models:8000/v1", {}, False),
        ("http://127.0.0.1:4567/v1", {"NBLLM_ENDPOINTS__VLLM__BASE_URL": "http://gpu:1/v1"}, False),
    ],
)
def test_an_engine_that_was_started_again_is_found(
    url: str, environ: dict[str, str], moved: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On another port than when it was exported: the app gets its key and its address, unless somebody has said another one."""
    (tmp_path / "settings.toml").write_text(FILE.format(url=url), encoding="utf-8")
    endpoint = Endpoint(base_url="http://127.0.0.1:9999/v1", api_key="k" * 32)
    engines = [SimpleNamespace(name="vllm", endpoint=endpoint), SimpleNamespace(name="other", endpoint=endpoint)]
    monkeypatch.setattr("nbllm.engines.running", lambda: engines, raising=False)
    address = {"NBLLM_ENDPOINTS__VLLM__BASE_URL": "http://127.0.0.1:9999/v1"} if moved else {}
    assert engine_variables(tmp_path, environ) == {"VLLM_KEY": "k" * 32, **address}
    assert engine_variables(tmp_path / "nothing", environ) == {}
