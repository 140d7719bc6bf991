"""What the processes of a run tell each other, and who writes.

All processes run the same program in the same order. Process 0 decides what depends on a clock, on a signal or on a
file, and alone writes. Decisions travel as JSON through the key-value store of jax's coordination service, so that
nobody waits in a compiled collective while another one measures or compiles. Arrays travel as bytes through a
compiled collective.
"""

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
from jax.sharding import Mesh

from metarun import errors, signals
from metarun.base import PyTree
from metarun.hosts import failure_reports, guardian, transfers
from metarun.hosts.placement import Placement

LISTEN_MILLISECONDS = 1000  # between two looks at signals and failures, while waiting
FAREWELL_SECONDS = 5  # that the others have to hear of a failure in
STOP, FAILURE = "metarun/stop", "metarun/failure"

Result = TypeVar("Result")


class Processes:
    """The processes of a run, as one of them sees them. By default there is one, and nothing is ever sent.

    Use `together` as a context: at its end the processes part, or the failure of one becomes that of all.
    """

    def __init__(self, place: Placement | None = None) -> None:
        self.place = place
        self.count, self.index = (place.count or 1, place.index or 0) if place else (1, 0)
        self.stop: signals.StopRequest | None = None  # the signals that this process has got
        self._round = 0
        self._parting = False  # whether all processes know that the run ends before its time
        self._shared: list[str] = []  # keys that all have read when they meet next

    @property
    def is_first(self) -> bool:
        """Whether this process decides and writes."""
        return self.index == 0

    @property
    def _client(self) -> Any:
        """The coordination service. jax has no public way to its key-value store."""
        from jax._src import distributed

        return distributed.global_state.client

    def list_devices(self, own: list[jax.Device]) -> list[jax.Device]:
        """Return the devices of all processes, those of process 0 first: as many of each as `own`.

        Raises:
          AcceleratorError: a process has another number of devices.
        """
        if self.count == 1:
            return own
        counts = dict.fromkeys(range(self.count), 0)
        devices = [device for device in jax.devices(own[0].platform) if device.process_index in counts]
        chosen: list[jax.Device] = []
        for device in sorted(devices, key=lambda device: (device.process_index, device.id)):
            if counts[device.process_index] < len(own):
                counts[device.process_index] += 1
                chosen.append(device)
        if len(set(counts.values())) > 1 or len(own) != counts[self.index]:
            raise errors.AcceleratorError(
                f"the processes have different numbers of devices: {', '.join(map(str, counts.values()))}",
                str(self.place),
                "set accelerator.devices to the smallest of them",
            )
        return chosen

    def refuse_idle(self, mesh: Mesh) -> None:
        """Refuse a mesh that leaves out a process: it would have nothing to compute, and nobody to wait for.

        Raises:
          AcceleratorError: says how many processes have work.
        """
        busy = {device.process_index for device in mesh.devices.flat}
        if len(busy) < self.count:
            raise errors.AcceleratorError(
                f"there is work for {len(busy)} of {self.count} processes",
                str(self.place),
                "use fewer processes, or more replicas or training.tasks_per_step",
            )

    def share(self, value: Any) -> Any:
        """Return the value that process 0 calls it with, which fits into JSON. Every process calls it."""
        if self.count == 1:
            return value
        self._round += 1
        key = f"metarun/shared/{self._round}"
        if not self.is_first:
            return json.loads(self._listen(key))
        self._client.key_value_set(key, json.dumps(value))
        self._shared.append(key)
        return value

    def meet(self) -> None:
        """Return when every process has called it."""
        if self.count == 1:
            return
        keys = [f"metarun/met/{self._round}/{index}" for index in range(1, self.count)]
        if self.is_first:
            for key in keys:
                self._listen(key)
            for key in [*keys, *self._shared]:
                self._client.key_value_delete(key)
            self._shared.clear()
        else:
            self._client.key_value_set(keys[self.index - 1], "")
        self.share(None)

    def find_signal(self) -> int | None:
        """Return the signal that asks the run to stop, on process 0. Another process tells process 0 of its own."""
        signal = self.stop.signal if self.stop else None
        if self.count == 1:
            return signal
        if self.is_first:
            return signal or self._read(STOP, int)
        if signal is not None:
            self._client.key_value_set(STOP, str(signal), allow_overwrite=True)
        return signal

    def check_signal(self) -> None:
        """Raise Stopped if a signal has come. For what process 0 does while the others wait for it."""
        signal = self.find_signal()
        if signal is not None:
            raise signals.Stopped(signal)

    def wait_for(self, work: Callable[[], Result]) -> Result:
        """Return work(). A signal to the only process ends the wait for it. For what has nothing to save.

        Several processes do such work together, and hear of a signal afterwards.
        """
        return signals.wait_for(work, self.stop.check) if self.stop and self.count == 1 else work()

    def stop_together(self, signal: int | None) -> None:
        """Raise Stopped if there is a signal, which all processes call this with."""
        if signal is not None:
            self._parting = True
            raise signals.Stopped(signal)

    def check_same(self, text: str, what: str) -> None:
        """Refuse a text that is not that of process 0.

        Raises:
          ConfigError: names the first line that differs.
        """
        if self.count == 1:
            return
        theirs, own = self.share(text).splitlines(), text.splitlines()
        pairs = zip([*theirs, *[""] * len(own)], [*own, *[""] * len(theirs)], strict=False)
        if different := next(((one, other) for one, other in pairs if one != other), None):
            raise errors.ConfigError(
                f"{what} of process {self.index} is not that of process 0: {different[1].strip()[:60]!r} "
                f"in place of {different[0].strip()[:60]!r}",
                str(self.place),
                "start every process with the same command line; accelerator.hosts.count=1 trains alone",
            )

    def spread(self, read: Callable[[], PyTree], shapes: PyTree) -> PyTree:
        """Return the arrays that process 0 reads, on every process and bit for bit, as numpy arrays.

        Args:
          shapes: of the arrays, as from `jax.eval_shape`.
        """
        if self.count == 1:
            return read()
        tree = read() if self.is_first else jax.tree.map(transfers.make_zeros, shapes)
        self.meet()  # a failure to read is heard of here, and not in the collective
        return transfers.broadcast(tree)

    def let_first_raise(self) -> None:
        """Wait, on every process but the first, for the error that process 0 is about to raise, and raise it."""
        if not self.is_first:
            self.share(None)

    @contextlib.contextmanager
    def explain_losses(self) -> Iterator[None]:
        """Turn what the runtime raises about another process into the error of that process, or AcceleratorError."""
        try:
            yield
        except (jax.errors.JaxRuntimeError, ValueError) as error:
            if self.count == 1 or not failure_reports.is_about_another(error):
                raise
            self._raise_failure()
            reason = str(error).splitlines()[0][:160]
            raise errors.AcceleratorError(
                f"another process of the run has ended, or does not answer: {reason}",
                str(self.place),
                "look for the first error among the processes; then start all of them again together with --resume",
            ) from error

    def _listen(self, key: str) -> str:
        """Return the value of a key when it is there. Meanwhile pass on a signal, and hear of failures."""
        while True:
            try:
                value: str = self._client.blocking_key_value_get(key, LISTEN_MILLISECONDS)
                return value
            except jax.errors.JaxRuntimeError as error:
                if "DEADLINE_EXCEEDED" not in str(error):
                    raise
            self._raise_failure()
            if not self.is_first:
                self.find_signal()

    def _read(self, key: str, form: Callable[[str], Any]) -> Any:
        """Return the value of a key, or None if it is not there."""
        try:
            return form(self._client.key_value_try_get(key))
        except jax.errors.JaxRuntimeError:
            return None

    def _raise_failure(self) -> None:
        """Raise what another process has failed with, if one has."""
        failure = self._read(FAILURE, json.loads)
        if failure is None or failure["index"] == self.index:
            return
        self._hear()
        if failure["signal"] is not None:
            raise signals.Stopped(failure["signal"])
        raise failure_reports.make_error(**failure)

    def _hear(self) -> None:
        """Let the process that failed know that this one has heard of it."""
        self._parting = True
        self._client.key_value_set(f"{FAILURE}/heard/{self.index}", "", allow_overwrite=True)

    def _tell_failure(self, error: BaseException) -> None:
        """Let the others know why this process ends, and stay until they have heard of it, but not for long."""
        try:
            self._client.key_value_set(FAILURE, json.dumps(failure_reports.describe_error(error, self.index)))
        except jax.errors.JaxRuntimeError:
            self._hear()  # another one was quicker
            return
        deadline = time.monotonic() + FAREWELL_SECONDS
        for index in range(self.count):
            if index != self.index:
                patience = max(1, int(1000 * (deadline - time.monotonic())))
                self._client.blocking_key_value_get(f"{FAILURE}/heard/{index}", patience)
        self._parting = True

    @contextlib.contextmanager
    def together(self, stop: signals.StopRequest) -> Iterator[None]:
        """Train together inside the `with`. At its end the processes part; an error of one becomes that of all."""
        self.stop = stop
        try:
            yield
            self.meet()
        except BaseException as error:
            if self.count > 1:
                guardian.note(ending=getattr(error, "exit_code", 1))
                with contextlib.suppress(jax.errors.JaxRuntimeError):
                    if not self._parting:
                        self._tell_failure(error)
                    jax.distributed.shutdown()  # all others do so, too, when they have heard
            raise
        if self.count > 1:
            jax.distributed.shutdown()
