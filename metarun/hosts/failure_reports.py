"""The failure of one process, as the others hear of it."""

from typing import Any

from metarun import errors, signals

# What errors about another process say, whoever raises them.
LOST = ("Gloo", "NCCL", "coordination", "UNAVAILABLE", "heartbeat", "Connection")


def is_about_another(error: BaseException) -> bool:
    """Return whether an error of the runtime is about another process."""
    return any(sign in str(error) for sign in LOST)


def describe_error(error: BaseException, index: int) -> dict[str, Any]:
    """Return what the other processes need to fail in the same way."""
    signal = error.exit_code - 128 if isinstance(error, signals.Stopped) else None
    code, lines = 1, [f"{type(error).__name__}: {error}"[:300], "", ""]
    if isinstance(error, errors.MetarunError):
        code, lines = error.exit_code, [error.what, error.where, error.remedy]
    return {"index": index, "signal": signal, "code": code, "lines": lines}


def make_error(index: int, code: int, lines: list[str], **_: Any) -> errors.MetarunError:
    """Return the error that another process has failed with."""
    kinds = [kind for kind in errors.MetarunError.__subclasses__() if kind.exit_code == code]
    what, where, remedy = lines
    return (kinds or [errors.MetarunError])[0](
        f"process {index} of the run failed: {what}",
        where or f"process {index}",
        remedy or "see what it says",
    )
