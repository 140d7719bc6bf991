"""Downloads of data sets with checksums, and the check of files that are there already."""

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
except ImportError:
    # Windows: two processes may then write to one partial file, and its checksum will be wrong.
    fcntl = None  # type: ignore[assignment]

BY_HAND = "check the network and try again, or put the file there by hand"
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EFBIG}
TIMEOUT = 30.0  # seconds without a byte
CHUNK = 1 << 16  # bytes between two reports of progress

logger = logging.getLogger("metarun")


class FileReport(NamedTuple):
    """The state of one file of a data set."""

    file: str  # below the data root
    state: str  # "ok" | "missing" | "altered"
    detail: str  # why, or what to do


def verify(name: str, root: Path, progress: Progress | None = None) -> list[FileReport]:
    """Compare the content of every file of a data set below the data root with the published one."""
    module = datasets.load_module(name)
    return [_inspect(module, source, source.path(root), progress) for source in module.SOURCES]


def fetch(
    name: str, root: Path, progress: Progress | None = None, base_url: str | None = None
) -> list[FileReport]:
    """Download the files of a data set that are missing or altered, and keep those that verify.

    A new file takes its place only after its checksum and its content are right; until then the old file stays. An
    interrupted download goes on where it ended.

    Args:
      base_url: the address of a mirror, in place of the public addresses.

    Raises:
      DataError: a download failed.
      StorageError: the data root cannot be written.
    """
    module = datasets.load_module(name)
    reports = []
    for source, report in zip(module.SOURCES, verify(name, root, progress), strict=True):
        if report.state == "altered":
            logger.warning("replacing %s: %s", source.file, report.detail)
        if report.state != "ok":
            report = _download(module, source, root, base_url, progress)
        reports.append(report)
    return reports


def _inspect(module: ModuleType, source: Source, path: Path, progress: Progress | None) -> FileReport:
    with storage_errors(f"cannot look at {source.file}", path, "METARUN_DATA"):
        exists = path.exists()
    if not exists:
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
            _open_partial(target, source) as partial,
            tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetch-") as folder,
        ):
            download = _retrieve(source, base_url, Path(folder), partial, target, progress)
            report = _inspect(module, source, download, progress)
            if report.state != "ok":
                fault = f"the download of {source.file} is not good: {report.detail}"
                raise DataError(fault, str(target), BY_HAND)
            download.chmod(0o644)  # the data is public, so everybody who shares the data root may read it
            download.replace(target)
    return report


@contextlib.contextmanager
def _open_partial(target: Path, source: Source) -> Iterator[IO[bytes]]:
    """Open the file beside the target that keeps what has arrived, so that the next attempt can go on from there.

    It is removed at the end unless the next attempt can use it. A second process is refused.
    """
    path = target.with_name(f".{target.name}.part")
    # A link that somebody else put there is not followed, and a pipe does not block.
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    with os.fdopen(os.open(path, flags, 0o600), "r+b") as file:
        if not _lock(file):
            raise DataError(f"another process is fetching {source.file}", str(path), "wait until it is done")
        try:
            yield file
        finally:
            if not 0 < file.seek(0, os.SEEK_END) < source.bytes:
                path.unlink(missing_ok=True)


def _lock(file: IO[bytes]) -> bool:
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
    """Download into `folder` from the first address that gives the right checksum."""
    name = PurePosixPath(source.file).name
    pooch.get_logger().setLevel(logging.WARNING)  # it logs every download, which we do ourselves
    failures = []
    for url in (f"{base_url.rstrip('/')}/{name}",) if base_url else source.urls:
        downloader: Any = _ResumingDownloader(source, partial, progress)  # pooch's own annotations disagree
        for _ in range(2):
            resumed = partial.seek(0, os.SEEK_END) > 0
            try:
                return Path(pooch.retrieve(url, source.packed, name, folder, downloader=downloader))
            except (OSError, ValueError) as error:  # requests raises an OSError without errno
                if isinstance(error, OSError) and error.errno in DISK_ERRORS:
                    raise
                failure = f"{url}: {' '.join(str(error).split())}"
            if downloader.interrupted:
                break
            partial.truncate(0)  # what arrived is not the file
            if not resumed:
                break
            # A resumed download may have begun wrongly, and gets one more attempt from its start.
        failures.append(failure)
    raise DataError(f"cannot download {source.file}: {'; '.join(failures)}", str(target), BY_HAND)


class _ResumingDownloader:
    """A downloader for pooch that goes on where an earlier attempt ended, by an HTTP range (RFC 9110, 14.2)."""

    def __init__(self, source: Source, partial: IO[bytes], progress: Progress | None) -> None:
        self.source, self.partial, self.progress = source, partial, progress
        self.interrupted = False  # whether to keep what has arrived

    def __call__(self, url: str, output_file: str, pooch: object) -> None:
        import requests  # here, as in pooch, because it takes long to import

        self.interrupted = True
        start = self.partial.seek(0, os.SEEK_END)
        headers = {"Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
            if response.status_code == requests.codes.requested_range_not_satisfiable:
                self.interrupted = False
            response.raise_for_status()
            if not (response.status_code == requests.codes.partial_content and _starts_at(response, start)):
                self.partial.truncate(0)
            for chunk in _read_chunks(response):
                self._keep(chunk)
        self.interrupted = False
        self.partial.seek(0)
        with Path(output_file).open("wb") as file:
            shutil.copyfileobj(self.partial, file)
        self.partial.truncate(0)

    def _keep(self, chunk: bytes) -> None:
        """Add a chunk to what has arrived, and stop a download that does not end."""
        self.partial.seek(0, os.SEEK_END)
        self.partial.write(chunk)
        self.partial.flush()
        done, total = self.partial.tell(), self.source.bytes
        if done > 2 * total + (1 << 20):
            self.interrupted = False
            raise ValueError(f"sends more than twice the {total} bytes of the published file")
        if self.progress is not None:
            self.progress(min(done, total), total, f"fetching {self.source.file}")


def _read_chunks(response: Any) -> Iterator[bytes]:
    """Yield the bytes of a response as they were sent.

    requests would decompress what the server calls packed. A server that calls a .gz file so would then never give the
    published checksum, and older versions of urllib3 bound no chunk (before 2.6, CVE-2025-66471).
    """
    import urllib3

    try:
        yield from response.raw.stream(CHUNK, decode_content=False)
    except urllib3.exceptions.HTTPError as error:
        raise OSError(str(error)) from error


def _starts_at(response: Any, start: int) -> bool:
    """Return whether a partial response begins at this byte, because some servers send another range."""
    return str(response.headers.get("Content-Range", "")).startswith(f"bytes {start}-")
