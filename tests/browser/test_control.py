"""The traps of the hostile tests do close: without nbllm's escaping they would be seen."""

from __future__ import annotations

import pytest

from tests.browser.lab import Lab
from tests.browser.visit import Visit

pytestmark = [pytest.mark.browser, pytest.mark.timeout(200)]

UNSAFE = """
from IPython.display import Markdown
Markdown('<img src=x onerror="window.pwned.push(1)">\\n\\n![](http://198.51.100.7/pixel.png)')
"""


def test_unescaped_markdown_is_caught(tab: Visit, lab: Lab) -> None:
    """Shown as plain Markdown, a hostile text runs its handler and asks for its pixel: both are noticed, and nothing leaves."""
    tab.open(lab.write("control.ipynb", [UNSAFE]))
    with tab.page.expect_event("requestfailed", lambda request: "198.51.100.7" in request.url):
        tab.run_all()
    tab.page.wait_for_function("() => window.pwned.length > 0")
    assert any("198.51.100.7" in url for url in tab.foreign)
    assert any("198.51.100.7" in one and "ERR_NAME_NOT_RESOLVED" in one for one in tab.refused)


def test_errors_are_counted(tab: Visit, lab: Lab) -> None:
    """A cell that fails is seen as one error, and running all stops there."""
    name = lab.write("fails.ipynb", ["1 / 0", "print('not reached')"])
    tab.open(name)
    tab.run_all()
    (error,) = tab.error_texts()
    assert "ZeroDivisionError" in error
    assert tab.outputs(1) == ""
