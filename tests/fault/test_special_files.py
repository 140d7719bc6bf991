"""Pipes, devices, links, folders and huge empty files in the place of data: refused at once by every reader."""

import os
import socket
import tempfile
from pathlib import Path

from fault import bounded

SECONDS = 120  # for all; nothing waits for a pipe
MOST_BYTES = 1 << 30  # of memory; a sparse file of 40 GB is not read
NAMES = ("data.tsv", "data.png", "data.csv", "data.safetensors", "data")


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def make_sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(40 << 30)


def make_loop(path: Path) -> None:
    path.symlink_to(path)


def make_dangling(path: Path) -> None:
    path.symlink_to(path.parent / "nothing")


def make_socket(path: Path) -> None:
    with tempfile.TemporaryDirectory() as short:  # the path of a socket has at most 107 bytes
        place = Path(short) / "s"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(place))
        place.rename(path)


def make_empty(path: Path) -> None:
    path.touch()


def make_folder(path: Path) -> None:
    path.mkdir()


KINDS = (make_pipe, make_device, make_sparse, make_loop, make_dangling, make_socket, make_empty, make_folder)


def test_no_reader_takes_what_is_no_file_for_data_or_waits_for_it(attack, tmp_path):
    files = []
    for make in KINDS:
        for name in NAMES:
            path = tmp_path / make.__name__ / name
            path.parent.mkdir(exist_ok=True)
            try:
                make(path)
            except (
                OSError
            ) as error:  # a file system without sparse files, or a kernel without sockets in files
                print(f"not tried: {make.__name__}: {error}")
                continue
            files.append(path)
    for outcome in bounded.read_all("fault.readers:read_in_every_way", files, tmp_path, SECONDS):
        attack.tries += 1
        if outcome.said != "refused" or outcome.peak > MOST_BYTES:
            attack.fail(
                f"{outcome.path.parent.name} {outcome.path.name}: {outcome.said}, {outcome.peak:,} bytes"
            )
