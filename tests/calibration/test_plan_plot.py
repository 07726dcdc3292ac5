"""The picture of a plan."""

from __future__ import annotations

import io
import subprocess
import sys

import numpy as np

from nbllm.calibration import calibrate_threshold

RNG = np.random.default_rng(7)
SCORES = RNG.random(1_000)
CORRECT = RNG.random(1_000) < 1 - 0.6 * (1 - SCORES) ** 1.5


def test_a_plan_draws_its_curve_and_what_was_chosen() -> None:
    """The line is the error seen, the band ends at the bounds, the dot is the plan; axes and legend say what is what."""
    plan = calibrate_threshold(SCORES, CORRECT, max_error=0.1)
    figure = plan.plot()
    (ax,) = figure.axes
    lines = {str(line.get_label()): line for line in ax.lines}
    assert np.array_equal(lines["seen on the labels"].get_ydata(), plan.curve.error_rate)
    (dot,) = [line for label, line in lines.items() if label.startswith("chosen")]
    assert (dot.get_xdata()[0], dot.get_ydata()[0]) == (plan.hit_rate, plan.error_upper)
    assert "share" in ax.get_xlabel()
    assert "wrong" in ax.get_ylabel()
    file = io.BytesIO()
    figure.savefig(file, format="png")
    assert file.getvalue().startswith(b"\x89PNG")


def test_a_refused_plan_draws_too() -> None:
    """With few labels, and with scores that are all alike, there is a picture that says that the threshold was refused."""
    for plan in (calibrate_threshold(SCORES[:5], CORRECT[:5]), calibrate_threshold(np.ones(9), np.ones(9))):
        assert "refused" in plan.plot().axes[0].get_title(loc="left")


def test_pyplot_is_left_alone_and_numpy_is_enough_to_calibrate() -> None:
    """Calibrating loads no matplotlib; drawing loads it without pyplot, whose figures are one list for the whole process."""
    code = """
import sys, numpy as np
from nbllm.calibration import calibrate_threshold
plan = calibrate_threshold(np.linspace(0, 1, 400), np.ones(400))
assert "matplotlib" not in sys.modules and "nbllm.core" not in sys.modules
plan.plot().savefig("/dev/null" if sys.platform != "win32" else "nul", format="png")
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)
