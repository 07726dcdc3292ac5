"""Errors by themselves: names, pickles, and what they carry along."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Callable

import pytest

from nbllm import errors
from nbllm.core.messages import Partial

CLASSES = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]


@pytest.mark.parametrize("kind", CLASSES)
def test_tracebacks_and_pickles_name_errors_as_people_import_them(kind: type[Exception]) -> None:
    """Each is nbllm.errors.NAME, whichever file it is written in."""
    assert (kind.__module__, kind.__qualname__) == ("nbllm.errors", kind.__name__)
    assert pickle.loads(pickle.dumps(kind)) is kind  # noqa: S301 - our own


def test_an_error_goes_to_another_process_with_all_it_says() -> None:
    """Fields, hint, cause and the errors of a group survive a pickle."""
    one = errors.BadParameter("No.", parameter="top_p", rung="lab/m", status=400, partial=Partial(text="a"), hint="Leave it out.")
    one.__cause__ = ValueError("because")
    group = pickle.loads(pickle.dumps(errors.AllRungsFailed("All.", [one], hint="Wait.")))  # noqa: S301 - our own
    (same,) = group.exceptions
    assert (str(group).splitlines()[-1], same.parameter, same.rung, same.status) == ("Wait.", "top_p", "lab/m", 400)
    assert (same.partial, same.hint, str(same.__cause__)) == (Partial(text="a"), "Leave it out.", "because")


def raised(work: Callable[[], object]) -> BaseException:
    """Return what some work raises."""
    with pytest.raises(BaseException) as caught:
        work()
    return caught.value


def failing(kind: type[Exception]) -> Callable[[], None]:
    """Something that fails because something else did, with a secret among its variables."""

    def work() -> None:
        secret = "a-secret-among-variables"
        try:
            int(f"{secret}!"[:0])
        except ValueError as exc:
            raise kind("It failed.") from exc

    return work


def with_variables(error: BaseException) -> str:
    """A traceback as verbose tools print it."""
    return "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())


def test_an_error_of_ours_lets_go_of_frames_and_a_bug_keeps_them() -> None:
    """Causes are still named; where in nbllm a server's refusal was read helps nobody, where a bug is does."""
    ours, bug = raised(failing(errors.ServerFailed)), raised(failing(TypeError))
    assert all("a-secret-among-variables" in with_variables(error) for error in (ours, bug))
    errors.drop_frames(ours)
    errors.drop_frames(bug)
    assert "a-secret-among-variables" not in with_variables(ours)
    assert "ValueError: invalid literal" in with_variables(ours)
    assert "a-secret-among-variables" in with_variables(bug)


def test_dropping_frames_ends_where_causes_go_in_a_circle() -> None:
    """A cause that has the error itself as its cause is no trap."""
    one, two = errors.ServerFailed("one"), errors.ServerFailed("two")
    one.__cause__, two.__cause__ = two, one
    errors.drop_frames(one)
    assert one.__traceback__ is None
