"""What the calls share: overrides from Python, and how signals and libraries are kept quiet."""

import contextlib
import logging
import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from metarun.plain_text import PlainFormatter

LOGGER = logging.getLogger("metarun")

Place = str | os.PathLike[str]  # a path, or a Run
Overrides = Mapping[str, Any] | None


def list_overrides(overrides: Overrides, keys: Mapping[str, Any]) -> list[str]:
    """Return overrides as `key=value`, those of the dict first."""
    from metarun.config import plain_values

    named = {key.replace("__", "."): value for key, value in keys.items()}
    return [plain_values.format_override(*item) for item in [*(overrides or {}).items(), *named.items()]]


def format_axis(key: str, value: Any) -> str:
    """Return what a sweep tries for a key, as somebody would type it."""
    from metarun.config import plain_values

    plain = plain_values.simplify(value)
    if isinstance(plain, str):
        return f"{key}={plain}"
    members = plain if isinstance(plain, list) else [plain]
    values = (plain_values.format_override("", member)[1:] for member in members)
    return f"{key}={','.join(values)}"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Let warnings of metarun alone be seen, whatever a notebook does with the log.

    A handler of the logger `metarun` gets all its records. Libraries that print tracebacks of errors that metarun
    reports itself are silent.
    """
    others = [logging.getLogger(name) for name in ("absl", "asyncio")]
    disabled, propagates = [logger.disabled for logger in others], LOGGER.propagate
    handler = logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    handler.setFormatter(PlainFormatter("warning: %(message)s"))
    has_handlers = bool(LOGGER.handlers)
    try:
        LOGGER.propagate = False
        for logger in others:
            logger.disabled = True
        if not has_handlers:
            LOGGER.addHandler(handler)
        yield
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.propagate = propagates
        for logger, was_disabled in zip(others, disabled, strict=True):
            logger.disabled = was_disabled


@contextlib.contextmanager
def interrupting(path: Path) -> Iterator[None]:
    """Turn what ends a run after Ctrl-C into the exception that Python has for it."""
    from metarun import signals

    try:
        yield
    except signals.Stopped as stop:
        if stop.exit_code != 128 + signal.SIGINT:
            raise
        raise KeyboardInterrupt(
            f"the state is saved: call it again, with resume=True for a run: {path}"
        ) from None
