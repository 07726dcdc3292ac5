"""The parser of server-sent events."""

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.errors import AnswerTooLarge
from nbllm.providers.sse import Event, SseParser


def read(*chunks: bytes, limit: int = 1024 * 1024) -> list[Event]:
    parser = SseParser(limit)
    events = [event for chunk in chunks for event in parser.feed(chunk)]
    return [*events, *parser.finish()]


def reference(data: bytes) -> list[Event]:
    """The same rules read off whole text, written another way: regular expressions over a decoded string."""
    text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace")
    events: list[Event] = []
    fields: list[str] = []
    name = ""
    for line in [*re.split("\r\n|\r|\n", text), ""]:
        match = re.fullmatch(r"([^:]+)(?::[ ]?(.*))?", line, re.DOTALL)
        if line == "":
            if fields:
                events.append(Event("\n".join(fields), name or "message"))
            fields, name = [], ""
        elif match is not None and match[1] == "data":
            fields.append(match[2] or "")
        elif match is not None and match[1] == "event":
            name = match[2] or ""
        elif match is not None and match[1] == "error":
            fields.append(match[2] or "")
            name = "error"
    return events


AWKWARD = (
    b"\xef\xbb\xbfdata: one\r\n\r\n: a comment\ndata:two\rdata: three\r\revent: error\ndata: \xe2\x82\xac \xf0\x9f\x92\xa1\n\n"
    b"id: 4\nretry: 10\ndata\ndata:  indented\n\n\n\nerror: {}\n\ndata: [DONE]"
)


def test_each_line_ending_comment_and_field_is_read_as_the_standard_says() -> None:
    """CR, LF, CRLF, BOM, comments, several data lines, a missing space and a missing last empty line are all read."""
    assert read(AWKWARD) == [
        Event("one"),
        Event("two\nthree"),
        Event("\u20ac \U0001f4a1", "error"),
        Event("\n indented"),
        Event("{}", "error"),
        Event("[DONE]"),
    ]


@pytest.mark.parametrize("ending", [b"\n", b"\r", b"\r\n"])
def test_split_at_every_byte_gives_the_same_events(ending: bytes) -> None:
    """Wherever the network cuts the bytes, the events are the same: two pieces at every place, and single bytes."""
    data = AWKWARD.replace(b"\n", ending)
    whole = read(data)
    for cut in range(len(data) + 1):
        assert read(data[:cut], data[cut:]) == whole
    assert read(*(data[i : i + 1] for i in range(len(data)))) == whole


@given(
    lines=st.lists(
        st.one_of(
            st.sampled_from([b"", b"data", b"data:", b"data: x", b":", b"event: e", b"event", b"\xef\xbb\xbfdata: b", b"error: z"]),
            st.text(max_size=8).map(lambda text: b"data: " + text.encode("utf-8", "surrogatepass")),
            st.binary(max_size=12),
        ),
        max_size=12,
    ),
    endings=st.lists(st.sampled_from([b"\n", b"\r", b"\r\n"]), min_size=12, max_size=12),
    cuts=st.lists(st.integers(min_value=0, max_value=200), max_size=6),
)
def test_any_bytes_cut_anywhere_are_read_like_the_reference(lines: list[bytes], endings: list[bytes], cuts: list[int]) -> None:
    """For any bytes and any cuts the events are those of a slow reader that has all the bytes at once."""
    data = b"".join(line + ending for line, ending in zip(lines, endings, strict=False))
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    chunks = [data[a:b] for a, b in itertools.pairwise(places)]
    assert read(*chunks) == reference(data)


@given(data=st.binary(max_size=300))
def test_noise_never_breaks_the_parser(data: bytes) -> None:
    """Random bytes give events or none, never an exception."""
    assert read(data) == read(*(data[i : i + 1] for i in range(len(data))))


@pytest.mark.parametrize("step", [1, 7, 64, 1000])
def test_a_line_over_the_limit_is_refused_and_what_came_before_is_kept(step: int) -> None:
    """The events before a line that is too long still arrive, and the long line raises however it is cut."""
    data = b"data: first\n\n" + b"data: " + b"x" * 100 + b"\n\n"
    parser = SseParser(limit_bytes=64)
    seen: list[str] = []

    def read_on() -> None:
        for start in range(0, len(data), step):
            for event in parser.feed(data[start : start + step]):
                seen.append(event.data)

    with pytest.raises(AnswerTooLarge, match="64 bytes"):
        read_on()
    assert seen == ["first"]


def test_an_event_of_many_short_lines_has_the_same_limit() -> None:
    """A server cannot get around the limit with many data lines in one event."""
    with pytest.raises(AnswerTooLarge):
        read(b"data: 0123456789\n" * 10, limit=64)


def test_a_line_of_exactly_the_limit_is_accepted() -> None:
    """The limit itself is allowed."""
    assert read(b"data: " + b"x" * 58 + b"\n\n", limit=64) == [Event("x" * 58)]
