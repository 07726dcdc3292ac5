"""The wheel of nbllm that travels in an export: made of the files that run here, the same bytes each time, without a build tool."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import nbllm

ROOT = Path(nbllm.__file__).resolve().parent
_LEFT_OUT = {"__pycache__", "requirements.lock", "_notebooks", "_labextension", ".ipynb_checkpoints"}
_WHEN = (1980, 1, 1, 0, 0, 0)
"""The earliest moment that a zip file knows: when an export was made must not change its bytes."""
_MODE = 0o100644 << 16


def wheel() -> tuple[str, bytes]:
    """Return the wheel's file name and bytes.

    Made of the package's folder, so an editable checkout and an installed wheel give what they run; stored without compression,
    because compressed bytes differ between releases of zlib.
    """
    info = f"nbllm-{nbllm.__version__}.dist-info"
    files = {f"nbllm/{path.relative_to(ROOT).as_posix()}": path.read_bytes() for path in _package_files()}
    files[f"{info}/METADATA"] = _metadata().encode()
    files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: nbllm export\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[f"{info}/entry_points.txt"] = b"[console_scripts]\nnbllm = nbllm.cli:main\n"
    licence = _licence()
    if licence is not None:
        files[f"{info}/licenses/LICENSE"] = licence
    record = "".join(f"{name},sha256={_digest(data)},{len(data)}\n" for name, data in sorted(files.items()))
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    return f"nbllm-{nbllm.__version__}-py3-none-any.whl", _zipped(files, last=info)


def own_requirements() -> list[str]:
    """Return what nbllm depends on, as requirement texts with the extras' markers: from the checkout, else what is installed."""
    checkout = ROOT.parent / "pyproject.toml"
    if checkout.is_file():
        project = tomllib.loads(checkout.read_text(encoding="utf-8"))["project"]
        extras = project.get("optional-dependencies", {})
        return [*project["dependencies"], *(_of_extra(text, name) for name, texts in extras.items() for text in texts)]
    return list(metadata.requires("nbllm") or ())


def _of_extra(requirement: str, extra: str) -> str:
    wanted, semicolon, marker = requirement.partition(";")
    return f"{wanted.strip()}; ({marker.strip()}) and extra == '{extra}'" if semicolon else f"{wanted.strip()}; extra == '{extra}'"


def _package_files() -> list[Path]:
    """Return the files of the package, in a fixed order; caches, notebooks, the lock and the browser's part do not serve."""
    found = (p for p in ROOT.rglob("*") if p.is_file() and not _LEFT_OUT & set(p.relative_to(ROOT).parts) and p.suffix != ".pyc")
    return sorted(found)


def _metadata() -> str:
    from packaging.requirements import Requirement

    # In one form and order, wherever they were read.
    wanted = sorted({str(Requirement(text)) for text in own_requirements()})
    extras = sorted({name for text in wanted for name in re.findall(r"extra == \"([\w-]+)\"", text)})
    lines = [
        "Metadata-Version: 2.4", "Name: nbllm", f"Version: {nbllm.__version__}", "Requires-Python: >=3.11",
        "License-Expression: BSD-3-Clause",
        *(f"Provides-Extra: {name}" for name in extras), *(f"Requires-Dist: {text}" for text in wanted),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _licence() -> bytes | None:
    checkout = ROOT.parent / "LICENSE"
    if checkout.is_file() and (ROOT.parent / "pyproject.toml").is_file():
        return checkout.read_bytes()
    try:
        text = metadata.distribution("nbllm").read_text("licenses/LICENSE")
    except metadata.PackageNotFoundError:
        return None
    return text.encode() if text is not None else None


def _digest(data: bytes) -> str:
    """Return the hash as RECORD wants it (the wheel format: urlsafe base64 without padding)."""
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")


def _zipped(files: dict[str, bytes], *, last: str) -> bytes:
    """Return the archive, metadata at its end as the wheel format recommends."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files, key=lambda n: (n.startswith(last), n)):
            one = zipfile.ZipInfo(name, _WHEN)
            one.external_attr = _MODE
            archive.writestr(one, files[name])
    return out.getvalue()
