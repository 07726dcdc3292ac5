"""The traps of the hostile tests do close: without nbllm's escaping they would be seen."""

from __future__ import annotations

import pytest

from tests.browser.lab import TRAPS, Lab, Visit

pytestmark = [pytest.mark.browser, pytest.mark.timeout(200)]

UNSAFE = """
from IPython.display import Markdown
Markdown('<img src=x onerror="window.pwned.push(1)">\\n\\n![](http://198.51.100.7/pixel.png)')
"""


def test_unescaped_markdown_is_caught(tab: Visit, lab: Lab) -> None:
    """Shown as plain Markdown, a hostile text runs its handler and asks for its pixel, and both are noticed."""
    name = lab.write("control.ipynb", [UNSAFE])
    tab.page.add_init_script(TRAPS)
    tab.open(name)
    tab.run_all()
    tab.page.wait_for_function("() => window.pwned.length > 0", timeout=10_000)
    tab.page.wait_for_timeout(300)
    assert any("198.51.100.7" in url for url in tab.foreign)


def test_errors_are_counted(tab: Visit, lab: Lab) -> None:
    """A cell that fails is seen as one error, and running all stops there."""
    name = lab.write("fails.ipynb", ["import time\ntime.sleep(1)\n1 / 0", "print('not reached')"])
    tab.open(name)
    tab.run_all()
    (error,) = tab.error_texts()
    assert "ZeroDivisionError" in error
    assert tab.outputs(1) == ""
