"""The keywords of the doors are typed: a checker refuses a wrong name and a wrong type, and takes what the README shows."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import pytest

import nbllm
from nbllm import Client

RIGHT = """
import asyncio
from dataclasses import dataclass
from decimal import Decimal
import nbllm
from nbllm import CallOptions, Client

@dataclass
class City:
    name: str

client = Client()
options: CallOptions = {"temperature": 0.5, "deadline_s": 30}
client.ask("q", model="sim/small", schema=City, check=lambda city: bool(city), retries=0, static="later", budget_usd=Decimal(1))
client.ask("q", model=["sim/small", "sim/large"], stop=["END"], logprobs=2, cache="refresh", tags="a", budget_usd="0.10")
client.ask([{"role": "user", "content": "q"}], tools=[{"type": "function"}], ttft_s=None)
client.ask("q", **options)
client.start("q", watched=False, deadline_s=5)
client.embed(["a"], model="sim/small", extra={"dimensions": 8}, cache="off")
for piece in client.stream("q", on_interrupt="restart", idle_s=5): piece.upper()
nbllm.ask("q", feature="f", user="u", ttl_s=60)
async def main() -> None:
    await client.aask("q", seed=1)
    async for piece in client.astream("q", system="Be brief."): piece.upper()
    await client.aembed(["a"], retries=1)
    await client.areset_breakers()
asyncio.run(main())
"""
WRONG = {
    'client.ask("q", temprature=0.5)': "temprature",
    'client.ask("q", temperature="hot")': "temperature",
    'client.ask("q", cache="maybe")': "cache",
    'client.stream("q", deadline="30s")': "deadline",
    'client.astream("q", retries=None)': "retries",
    'client.start("q", check="short")': "check",
    'client.embed(["a"], schema=int)': "schema",
    'nbllm.ask("q", max_tokens="many")': "max_tokens",
    'nbllm.stream("q", sample=1.5)': "sample",
    'nbllm.embed(["a"], temperature=1)': "temperature",
    "coroutines = [client.aask('q', modle='sim/small'), nbllm.aask('q', tags=5), client.aembed(['a'], stop='x')]": "modle",
}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_checker_takes_right_options_and_refuses_wrong_ones(tmp_path: Path) -> None:
    """Mypy --strict finds nothing in right calls, and an error that names the option in each wrong one.

    nbllm's signatures are read, its functions are not checked a second time (make check does), nor are other packages read, none of
    whose types an option has: twenty times faster.
    """
    (tmp_path / "right.py").write_text(RIGHT)
    (tmp_path / "wrong.py").write_text("\n".join(("import nbllm", "client = nbllm.Client()", *WRONG)) + "\n")
    options = [
        "--strict",
        "--config-file=",
        "--follow-imports=silent",
        "--no-site-packages",
        "--ignore-missing-imports",
        "--cache-dir",
        str(tmp_path / "cache"),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, "right.py", "wrong.py"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"MYPYPATH": str(Path(nbllm.__file__).parents[1]), "PATH": ""},
        check=False,
    )
    found: dict[int, str] = {}
    for name, line, said in re.findall(r"^(\w+)\.py:(\d+): error: (.*)$", done.stdout, re.MULTILINE):
        assert name == "wrong", done.stdout
        found[int(line)] = found.get(int(line), "") + said
    assert set(found) == set(range(3, 3 + len(WRONG))), done.stdout + done.stderr
    for number, option in enumerate(WRONG.values(), 3):
        assert f'"{option}"' in found[number]


@pytest.mark.parametrize("door", ["ask", "aask", "stream", "astream", "start", "embed", "aembed"])
def test_the_types_can_be_read_at_run_time(door: str) -> None:
    """Editors and documentation tools that look at the running code find the options' type too."""
    hints = get_type_hints(getattr(Client, door))
    assert hints["options"].__args__[0].__name__ == ("EmbedOptions" if "embed" in door else "CallOptions")
