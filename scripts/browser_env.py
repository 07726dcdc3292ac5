"""Find Chromium for the browser suite; install Debian's package when it is missing and this process may.

Where it cannot be had this says so and ends well: the tests are then skipped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
LIMIT_S = 600


def find() -> str | None:
    """Return the path of a Chromium, None without one. CHROMIUM names one of your own."""
    own = os.environ.get("CHROMIUM")
    return own or next((path for path in map(shutil.which, NAMES) if path), None)


def may_install() -> bool:
    """Return whether this is a Debian or Ubuntu on which this process may install packages without asking."""
    return shutil.which("apt-get") is not None and hasattr(os, "geteuid") and os.geteuid() == 0


def install() -> str | None:
    """Install Chromium and a font; return None, or why that did not work."""
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", "chromium", "fonts-dejavu-core"]):
        print("$ apt-get", *command, flush=True)
        try:
            done = subprocess.run(["apt-get", *command], env=env, capture_output=True, text=True, timeout=LIMIT_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as exc:
            return f"apt-get {command[0]}: {type(exc).__name__}"
        if done.returncode != 0:
            return f"apt-get {command[0]}: exit {done.returncode}: {done.stderr.strip()[-200:]}"
    return None


def main() -> int:
    """Make sure of a Chromium and say how that went; the exit code is 0 either way."""
    if find() is not None:
        return 0
    reason: str | None = "install the package chromium, or set CHROMIUM to a browser of yours"
    if may_install():
        reason = install()
    if find() is None:
        print(f"There is no Chromium here, the browser tests will be skipped: {reason}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
