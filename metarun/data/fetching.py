"""Downloads data sets with checksum, and verifies what is there by its content."""

import contextlib
import errno
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import IO, Any, NamedTuple

import pooch

from metarun.data import datasets
from metarun.data.sources import Progress, Source
from metarun.data.storage import storage_errors
from metarun.errors import DataError

try:
    import fcntl
except ImportError:  # Windows: two processes would then write to one partial file, and the checksum says so
    fcntl = None  # type: ignore[assignment]

_BY_HAND = "check the network and try again, or put the file there by hand"
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EFBIG}
_TIMEOUT = 30.0  # seconds without a byte
_CHUNK = 1 << 16  # bytes between two reports of progress

logger = logging.getLogger("metarun")


class FileReport(NamedTuple):
    """What was found out about one file of a data set."""

    file: str  # below the data root
    state: str  # "ok" | "missing" | "altered"
    detail: str  # why, or what to do


def verify(name: str, root: Path, progress: Progress | None = None) -> list[FileReport]:
    """Compares the content of every file of the data set below the data root with the published one."""
    module = datasets.module(name)
    return [_inspect(module, source, source.path(root), progress) for source in module.SOURCES]


def fetch(
    name: str, root: Path, progress: Progress | None = None, base_url: str | None = None
) -> list[FileReport]:
    """Downloads the files of the data set that are missing or altered; those that verify are kept.

    A file takes its place only once its checksum and its content are right: otherwise a file that was there
    stays. A download that was interrupted goes on where it ended. `base_url` replaces the public addresses, for a
    mirror.
    Raises DataError when a download fails, StorageError when the data root cannot be written.
    """
    module = datasets.module(name)
    reports = []
    for source, report in zip(module.SOURCES, verify(name, root, progress), strict=True):
        if report.state == "altered":
            logger.warning("replacing %s: %s", source.file, report.detail)
        kept = report.state == "ok"
        reports.append(report if kept else _download(module, source, root, base_url, progress))
    return reports


def _inspect(module: ModuleType, source: Source, path: Path, progress: Progress | None) -> FileReport:
    with storage_errors(f"cannot look at {source.file}", path, "METARUN_DATA"):
        there = path.exists()
    if not there:
        return FileReport(source.file, "missing", source.remedy)
    try:
        digest = module.content_digest(source, path, progress)
    except DataError as error:
        return FileReport(source.file, "altered", error.what)
    if digest != source.content:
        return FileReport(source.file, "altered", f"its content is not the published one: SHA-256 {digest}")
    return FileReport(source.file, "ok", "its content is the published one")


def _download(
    module: ModuleType, source: Source, root: Path, base_url: str | None, progress: Progress | None
) -> FileReport:
    target = source.path(root)
    with storage_errors(f"cannot write {source.file}", target, "METARUN_DATA"):
        target.parent.mkdir(parents=True, exist_ok=True)
        with (
            _partial(target, source) as partial,
            tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetch-") as folder,
        ):
            arrived = _retrieve(source, base_url, Path(folder), partial, target, progress)
            report = _inspect(module, source, arrived, progress)
            if report.state != "ok":
                fault = f"the download of {source.file} is not good: {report.detail}"
                raise DataError(fault, str(target), _BY_HAND)
            arrived.chmod(0o644)  # public data: whoever shares the data root may read it
            arrived.replace(target)
    return report


@contextlib.contextmanager
def _partial(target: Path, source: Source) -> Iterator[IO[bytes]]:
    """The file beside the target that keeps what has arrived, for the next attempt to go on from.

    It is removed unless it is worth going on from. Of two processes the second is refused.
    """
    path = target.with_name(f".{target.name}.part")
    # Never through a link that somebody else put there; nor would it wait at a pipe.
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    with os.fdopen(os.open(path, flags, 0o600), "r+b") as file:
        if not _locked(file):
            raise DataError(f"another process is fetching {source.file}", str(path), "wait until it is done")
        try:
            yield file
        finally:
            if not 0 < file.seek(0, os.SEEK_END) < source.bytes:
                path.unlink(missing_ok=True)


def _locked(file: IO[bytes]) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # some network file systems have no locks
        pass
    return True


def _retrieve(
    source: Source,
    base_url: str | None,
    folder: Path,
    partial: IO[bytes],
    target: Path,
    progress: Progress | None,
) -> Path:
    """Downloads into `folder` from the first address that gives the right checksum."""
    name = PurePosixPath(source.file).name
    pooch.get_logger().setLevel(logging.WARNING)  # it tells of every download on stderr, as we do
    failures = []
    for url in (f"{base_url.rstrip('/')}/{name}",) if base_url else source.urls:
        downloader: Any = _Resumed(source, partial, progress)  # pooch's own annotations disagree
        for _ in range(2):
            resumed = partial.seek(0, os.SEEK_END) > 0
            try:
                return Path(pooch.retrieve(url, source.packed, name, folder, downloader=downloader))
            except (OSError, ValueError) as error:  # what requests raises is an OSError without errno
                if isinstance(error, OSError) and error.errno in _DISK:
                    raise
                failure = f"{url}: {' '.join(str(error).split())}"
            if downloader.interrupted:
                break
            partial.truncate(0)  # what arrived is not the file
            if not resumed:  # else it may have begun wrongly: once more from the start
                break
        failures.append(failure)
    raise DataError(f"cannot download {source.file}: {'; '.join(failures)}", str(target), _BY_HAND)


class _Resumed:
    """A downloader for pooch that goes on where an earlier attempt ended, by an HTTP range (RFC 9110, 14.2)."""

    def __init__(self, source: Source, partial: IO[bytes], progress: Progress | None) -> None:
        self.source, self.partial, self.progress = source, partial, progress
        self.interrupted = False  # what has arrived is worth keeping

    def __call__(self, url: str, output_file: str, pooch: object) -> None:
        import requests  # as pooch does: it takes long to import

        self.interrupted = True
        start = self.partial.seek(0, os.SEEK_END)
        headers = {"Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
        with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
            if response.status_code == requests.codes.requested_range_not_satisfiable:
                self.interrupted = False
            response.raise_for_status()
            if not (response.status_code == requests.codes.partial_content and _starts_at(response, start)):
                self.partial.truncate(0)
            for chunk in response.iter_content(_CHUNK):
                self._keep(chunk)
        self.interrupted = False
        self.partial.seek(0)
        with Path(output_file).open("wb") as file:
            shutil.copyfileobj(self.partial, file)
        self.partial.truncate(0)

    def _keep(self, chunk: bytes) -> None:
        """Add to what has arrived; stops a download that does not end."""
        self.partial.seek(0, os.SEEK_END)
        self.partial.write(chunk)
        self.partial.flush()
        done, total = self.partial.tell(), self.source.bytes
        if done > 2 * total + (1 << 20):
            self.interrupted = False
            raise ValueError(f"sends more than twice the {total} bytes of the published file")
        if self.progress is not None:
            self.progress(min(done, total), total, f"fetching {self.source.file}")


def _starts_at(response: Any, start: int) -> bool:
    """Whether a partial response begins at the byte that was asked for: some servers send another range."""
    return str(response.headers.get("Content-Range", "")).startswith(f"bytes {start}-")
