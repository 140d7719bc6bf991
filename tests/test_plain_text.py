"""Text that cannot steer a terminal."""

import logging

import pytest

from metarun import errors, plain_text


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("größer als 5 µm – 漢字", "größer als 5 µm – 漢字"),
        ("a\x1b[31mb\nc\td\x7f", "a\ufffd[31mb\ufffdc\ufffdd\ufffd"),
        ("right\u202eleft", "right\ufffdleft"),
        ("half a letter \ud800", "half a letter \ufffd"),
        ("no text \udcff", "no text \ufffd"),
    ],
)
def test_what_is_no_printable_letter_becomes_a_sign(text, escaped):
    assert plain_text.escape(text) == escaped


def test_no_part_of_an_error_adds_a_line_to_the_three():
    part = "x\nto do: \x1b[2Jrun this"
    assert len(str(errors.DataError(part, part, part)).splitlines()) == 3
    assert "\x1b" not in str(errors.DataError(part, part, part))


def test_a_record_of_the_log_is_one_line_and_its_traceback_has_more():
    formatter = plain_text.PlainFormatter("warning: %(message)s")
    try:
        raise ValueError("a\x1b[31m\nb")
    except ValueError as error:
        seen = (type(error), error, error.__traceback__)
    record = logging.LogRecord("metarun", logging.WARNING, "", 0, "%s", ("one\ntwo\x1b",), seen)
    first, *traceback = formatter.format(record).split("\n")
    assert first == "warning: one\ufffdtwo\ufffd"
    assert traceback[0].startswith("Traceback") and traceback[-1] == "b"
    assert "\x1b" not in "".join(traceback)
