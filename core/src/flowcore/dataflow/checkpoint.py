"""Results on disk: records that can be told whole or torn, so that a crash costs the last one at most."""

from __future__ import annotations

import logging
import os
import pickle
import struct
import threading
import zlib
from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO, Final

import attrs

from flowcore.dataflow.errors import BadCheckpoint

logger = logging.getLogger(__name__)

FOLDER: Final = "checkpoint"
FILE: Final = "tasks.pkl"
MAGIC: Final = b"flowcore checkpoint 1\n"

_LENGTHS: Final = struct.Struct("<QH")
"""Of a record: how many bytes follow its header, and how many of them are the call's hash."""

_CHECKSUM: Final = struct.Struct("<I")
"""The CRC-32 of the lengths and of all that follows; it ends the header."""

_HEADER_SIZE: Final = _LENGTHS.size + _CHECKSUM.size

_CHUNK: Final = 1 << 20


@attrs.frozen
class Stored:
    """Where the result of a call is kept; it is read when it is asked for."""

    path: Path
    offset: int
    size: int

    def load(self) -> Any:
        """Return the result.

        Raises:
            Exception: whatever unpickling raises, if the result's class has changed or gone, say.
        """
        with self.path.open("rb") as stream:
            stream.seek(self.offset)
            return pickle.loads(stream.read(self.size))


class CheckpointWriter:
    """Appends results to the checkpoint of one run, from any thread. The file is made with the first one.

    A record goes out in one write, so that it survives the death of the process; `close` and `sync` make it survive
    the death of the machine.

    Args:
        folder: the run's checkpoint folder.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._lock = threading.RLock()  # a signal handler may write, or close, in the middle of a record
        self._stream: BinaryIO | None = None

    def append(self, hashsum: str, result: object) -> None:
        """Write one result.

        Raises:
            OSError: it cannot be written; what was written of it is taken back.
            Exception: whatever pickling raises.
        """
        key, pickled = hashsum.encode(), _pickled(result)
        lengths = _LENGTHS.pack(len(key) + len(pickled), len(key))
        checksum = zlib.crc32(pickled, zlib.crc32(key, zlib.crc32(lengths)))
        record = b"".join((lengths, _CHECKSUM.pack(checksum), key, pickled))
        with self._lock:
            stream = self._stream
            if stream is None:
                stream = self._stream = self._open()
            end = stream.tell()
            try:
                _write_all(stream, record)
            except OSError:
                stream.seek(end)
                stream.truncate()
                raise

    def sync(self) -> None:
        """Return when all that was written is on the disk."""
        with self._lock:
            if self._stream is not None:
                os.fsync(self._stream.fileno())

    def close(self) -> None:
        """Sync and close the file. Idempotent."""
        with self._lock:
            stream, self._stream = self._stream, None
        if stream is not None:
            with stream:
                os.fsync(stream.fileno())

    def _open(self) -> BinaryIO:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        stream = self.path.open("ab", buffering=0)
        if stream.tell() == 0:
            _write_all(stream, MAGIC)
        return stream


def read_checkpoint(place: str | PathLike[str]) -> dict[str, Stored]:
    """Return where the results of a checkpoint are, by the hash of the call.

    A record that was cut or damaged, and all after it, are left out with one warning.

    Args:
        place: a checkpoint folder, the folder of a run that has one, or the file itself.

    Raises:
        BadCheckpoint: there is no checkpoint, or the file is something else.
    """
    path = _file_of(Path(place))
    try:
        with path.open("rb") as stream:
            if stream.read(len(MAGIC)) != MAGIC:
                raise BadCheckpoint(f"{path} is no checkpoint of flowcore, or one of another version")
            return dict(_records(path, stream))
    except OSError as error:
        raise BadCheckpoint(f"the checkpoint {path} cannot be read: {error}") from error


def get_all_checkpoints(run_dir: str | PathLike[str] = "runinfo") -> list[str]:
    """Return the checkpoint folders of all runs under `run_dir`, the oldest first; for `checkpoint_files`."""
    root = Path(run_dir)
    runs = [path for path in root.iterdir() if path.name.isdigit()] if root.is_dir() else []
    folders = [run / FOLDER for run in sorted(runs, key=lambda run: int(run.name))]
    return [str(folder) for folder in folders if (folder / FILE).is_file()]


def get_last_checkpoint(run_dir: str | PathLike[str] = "runinfo") -> list[str]:
    """Return the checkpoint folder of the last run under `run_dir` that has one, in a list; else none."""
    return get_all_checkpoints(run_dir)[-1:]


def _file_of(place: Path) -> Path:
    for path in (place / FILE, place / FOLDER / FILE, place):
        if path.is_file():
            return path
    raise BadCheckpoint(
        f"there is no checkpoint in {place}: it has no {FILE}\n"
        "  flowcore.dataflow.checkpoint.get_all_checkpoints() lists those of earlier runs"
    )


def _records(path: Path, stream: BinaryIO) -> Iterator[tuple[str, Stored]]:
    size = os.fstat(stream.fileno()).st_size
    start = len(MAGIC)
    while start < size:
        header = stream.read(_HEADER_SIZE)
        if len(header) < _HEADER_SIZE:
            break
        lengths = header[: _LENGTHS.size]
        length, key_length = _LENGTHS.unpack(lengths)
        (checksum,) = _CHECKSUM.unpack(header[_LENGTHS.size :])
        body = start + _HEADER_SIZE
        if body + length > size or key_length > length:
            break
        key = stream.read(key_length)
        if _checksum_of(stream, length - key_length, zlib.crc32(key, zlib.crc32(lengths))) != checksum:
            break
        yield key.decode(errors="replace"), Stored(path, body + key_length, length - key_length)
        start = body + length
    if start < size:
        logger.warning("%s is damaged from byte %d on; what comes after is not used", path, start)


def _checksum_of(stream: BinaryIO, length: int, checksum: int) -> int:
    """Return the checksum of the next bytes, without holding them all."""
    while length and (chunk := stream.read(min(length, _CHUNK))):
        checksum = zlib.crc32(chunk, checksum)
        length -= len(chunk)
    return checksum


def _pickled(result: object) -> bytes:
    """Pickle by reference where that works: classes of the script are then the same classes in its next run."""
    try:
        return pickle.dumps(result, protocol=pickle.HIGHEST_PROTOCOL)
    except Exception:  # noqa: BLE001 - whatever an object's own code raises
        import cloudpickle

        return bytes(cloudpickle.dumps(result))


def _write_all(stream: BinaryIO, content: bytes) -> None:
    view: Sequence[Any] = memoryview(content)
    while view:
        view = view[stream.write(view) :]  # type: ignore[call-overload]  # a memoryview is a buffer
