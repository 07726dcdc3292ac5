"""A clean environment without an index: a venv that holds an export's wheel, and the distributions of its requirements.txt.

They are linked from this environment, which has them at the versions that the file pins; nothing else is visible in there.
"""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path


def clean_environment(app: Path, folder: Path) -> Path:
    """Make it for an export; return the folder of its `python`."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (packages,) = folder.glob("lib/python*/site-packages") if sys.platform != "win32" else [folder / "Lib" / "site-packages"]
    (wheel,) = (app / "vendor").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    for line in (app / "requirements.txt").read_text(encoding="utf-8").splitlines():
        if pin := re.match(r"([\w.-]+)==([^ \\]+)", line):
            _link(packages, pin[1], pin[2])
    (bin_,) = [p for p in (folder / "bin", folder / "Scripts") if p.is_dir()]
    return bin_


def _link(packages: Path, name: str, version: str) -> None:
    found = metadata.distribution(name)
    assert found.version == version
    for file in found.files or ():
        top = file.parts[0]
        if top not in {"..", "__pycache__"} and not (packages / top).exists():
            (packages / top).symlink_to(Path(str(found.locate_file(top))))
