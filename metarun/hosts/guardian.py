"""The parent of a process that trains together with others.

When a process of a run ends suddenly, or cannot find the others, jax's runtime aborts the rest from a thread of its
own, with a trace of C++ frames, and no handler in Python is asked. So the training runs in a child. The guardian
waits for it, passes signals on to it, holds back what the runtime says of its end, and turns a sudden end into three
lines and exit code 9. If the guardian is killed, the child ends, too.
"""

import json
import logging
import os
import re
import signal
import sys
import threading
from typing import IO, Any

from metarun import errors

GRACE_SECONDS = 10.0  # that a child has to end in, once it has said that it will
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# How lines of the runtime begin that come with every start, or with the end of another process.
NOISE = re.compile(r"\[Gloo\] |[EF]\d{4} .*(coordination|client\.h)|W\d{4} .*coordination_service")
FATAL = re.compile(r"[EF]\d{4} .*(coordination|client\.h)")
REASON = re.compile(r"absl::Status: (.*)")

_notes: IO[str] | None = None  # to the guardian; None: this process has none


def guard(place: str) -> None:
    """Fork. Only the child returns; the guardian leaves with the child's exit code. Call it before jax is imported.

    Args:
      place: of this process in the run, for the error's second line.

    Raises:
      AcceleratorError: in the guardian, if the child was aborted or killed.
      SystemExit: in the guardian, if the child ended by itself.
    """
    global _notes
    alive_end, alive = os.pipe()
    notes, notes_end = os.pipe()
    words, words_end = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        for descriptor in (alive_end, notes_end, words_end):
            os.close(descriptor)
        watch(child, place, os.fdopen(notes), os.fdopen(words, errors="replace"))
    for descriptor in (alive, notes, words):
        os.close(descriptor)
    os.setpgid(0, 0)  # a Ctrl-C goes to the guardian alone, which passes it on once
    threading.Thread(target=end_with_guardian, args=(alive_end,), daemon=True).start()
    _notes = os.fdopen(notes_end, "w")
    redirect_runtime(words_end)


def end_with_guardian(alive: int) -> None:
    """End this process when the guardian has gone: the other end of the pipe is closed then."""
    os.read(alive, 1)
    os._exit(errors.AcceleratorError.exit_code)


def redirect_runtime(words: int) -> None:
    """Send what C++ prints to the guardian. Python's own streams go on to where they went."""
    before = sys.stderr
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = os.fdopen(os.dup(number), "w", errors="backslashreplace")
        stream.reconfigure(line_buffering=number == 2 or stream.isatty())
        setattr(sys, name, stream)
        os.dup2(words, number)
    os.close(words)
    for handler in logging.getLogger("metarun").handlers:
        if isinstance(handler, logging.StreamHandler) and handler.stream is before:
            handler.setStream(sys.stderr)


def note(**facts: Any) -> None:
    """Tell the guardian how far this process has come: joined=True, or ending=exit code."""
    if _notes is not None:
        print(json.dumps(facts), file=_notes, flush=True)


def watch(child: int, place: str, notes: IO[str], words: IO[str]) -> None:
    """Wait for the child, and leave as it left; see `guard`."""
    for number in SIGNALS:
        signal.signal(number, lambda number, _: os.kill(child, number))
    facts: dict[str, Any] = {}
    held: list[str] = []
    readers = [
        threading.Thread(target=collect_notes, args=(notes, facts, child), daemon=True),
        threading.Thread(target=pass_on, args=(words, held), daemon=True),
    ]
    for reader in readers:
        reader.start()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    for reader in readers:
        reader.join(1.0)  # a process that the child has started may hold the pipes open
    said = "".join(held)
    if os.environ.get("METARUN_DEBUG"):
        print(said, file=sys.stderr)
    if "ending" in facts and code < 0:
        sys.exit(facts["ending"])  # it has said what there is to say, and did not come to its end
    if code in (-signal.SIGINT, -signal.SIGTERM, -signal.SIGHUP):
        sys.exit(128 - code)
    if code >= 0 and not FATAL.search(said):
        sys.exit(code)
    raise explain(code, place, facts, said)


def collect_notes(notes: IO[str], facts: dict[str, Any], child: int) -> None:
    """Collect what the child notes. It is killed if it does not end when it has said that it will."""
    for line in notes:
        facts |= json.loads(line)
        if "ending" in facts:
            timer = threading.Timer(GRACE_SECONDS, os.kill, (child, signal.SIGKILL))
            timer.daemon = True
            timer.start()


def pass_on(words: IO[str], held: list[str]) -> None:
    """Pass on what the runtime says, but hold back the noise, and all that follows on word of an end."""
    for line in words:
        if NOISE.match(line) or any(map(FATAL.match, held)):
            held.append(line)
        else:
            sys.stderr.write(line)
            sys.stderr.flush()


def explain(code: int, place: str, facts: dict[str, Any], said: str) -> errors.AcceleratorError:
    """Return what to say of a child that did not end by itself."""
    together = "start all processes again together with --resume"
    if code < 0 and code != -signal.SIGABRT:
        return errors.AcceleratorError(
            f"this process of the run was killed by {signal.Signals(-code).name}",
            place,
            f"look for the cause; {together}",
        )
    if facts.get("joined"):
        return errors.AcceleratorError(
            "another process of the run has ended, or does not answer",
            place,
            f"look for the first error among the processes; then {together}",
        )
    reason = next(iter(REASON.findall(said)), "no reason given")
    return errors.AcceleratorError(
        f"the processes of the run did not find each other: {reason[:160]}",
        place,
        "start all of them within half a minute, with the same coordinator (HOST:PORT of process 0, which "
        "they can all reach) and count, and each with an index of its own",
    )
