"""Downloads data sets with checksum, and verifies what is there by its content."""

import errno
import logging
import tempfile
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any, NamedTuple

import pooch

from metarun.data import datasets
from metarun.data.sources import Progress, Source
from metarun.data.storage import storage_errors
from metarun.errors import DataError

_BY_HAND = "check the network and try again, or put the file there by hand"
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EFBIG}

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

    A file takes its place only once its checksum and its content are right: otherwise nothing is left
    behind, and a file that was there stays. `base_url` replaces the public addresses, for a mirror.
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
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetch-") as folder:
            arrived = _retrieve(source, base_url, Path(folder), target, progress)
            report = _inspect(module, source, arrived, progress)
            if report.state != "ok":
                fault = f"the download of {source.file} is not good: {report.detail}"
                raise DataError(fault, str(target), _BY_HAND)
            arrived.chmod(0o644)  # public data: whoever shares the data root may read it
            arrived.replace(target)
    return report


def _retrieve(
    source: Source, base_url: str | None, folder: Path, target: Path, progress: Progress | None
) -> Path:
    """Downloads into `folder` from the first address that gives the right checksum."""
    name = PurePosixPath(source.file).name
    pooch.get_logger().setLevel(logging.WARNING)  # it tells of every download on stderr, as we do
    failures = []
    for url in (f"{base_url.rstrip('/')}/{name}",) if base_url else source.urls:
        meter: Any = _Meter(source, progress)
        downloader: Any = pooch.HTTPDownloader(progressbar=meter)  # pooch's own annotations disagree
        try:
            return Path(pooch.retrieve(url, source.packed, name, folder, downloader=downloader))
        except (OSError, ValueError) as error:  # what requests raises is an OSError without errno
            if isinstance(error, OSError) and error.errno in _DISK:
                raise
            failures.append(f"{url}: {' '.join(str(error).split())}")
    raise DataError(f"cannot download {source.file}: {'; '.join(failures)}", str(target), _BY_HAND)


class _Meter:
    """What pooch takes for a tqdm bar: passes progress on, and stops a download that does not end."""

    def __init__(self, source: Source, progress: Progress | None) -> None:
        self.source, self.progress = source, progress
        self.total, self.done = 0, 0  # bytes; pooch sets the total by the response's header

    def update(self, received: int) -> None:
        self.done += received
        if self.done > 2 * self.source.bytes + (1 << 20):
            raise ValueError(f"sends more than twice the {self.source.bytes} bytes of the published file")
        if self.progress is not None:
            total = self.source.bytes
            self.progress(min(self.done, total), total, f"fetching {self.source.file}")

    def reset(self) -> None:
        self.done = 0

    def close(self) -> None:
        pass
