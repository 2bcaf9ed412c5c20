"""`File`: a file that apps take and make, wherever it is."""

from __future__ import annotations

import copy
import os
import posixpath
import re
from os import PathLike
from typing import Any, Final
from urllib.parse import unquote, urlsplit

_SCHEME: Final = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*):/")


class File(PathLike[str]):
    """A file, named by a path or a URL; given to an app, it arrives there as a path that can be opened.

    A path is taken as it is, whatever characters it contains. `file:` URLs are percent-decoded. Two files are equal if
    they name the same place, whatever their local copies are.

    >>> File("data/a b.csv").filepath, File("file:///data/a%20b.csv").filepath
    ('data/a b.csv', '/data/a b.csv')
    >>> File("https://example.org/pub/list.txt").filename
    'list.txt'

    Args:
        url: a path, or a URL such as `https://host/path` or `zip:/archive.zip/member`.

    Raises:
        TypeError: `url` is neither a string nor a path.
        ValueError: `url` is empty.
    """

    def __init__(self, url: str | PathLike[str]) -> None:
        self.url: str = _text(url)
        """What was given."""
        self.scheme: str = "file"
        """How the file is reached; 'file' for paths."""
        self.netloc: str = ""
        """The host of the URL."""
        self.path: str = self.url
        """The path, on the host of the URL if there is one."""
        self.local_path: str | None = None
        """Where a staging method put, or will find, the copy that a task opens; None for the place itself."""
        if isinstance(url, str) and (match := _SCHEME.match(url)):
            self.scheme = match[1].lower()
            self.netloc, self.path = _split(self.scheme, url)

    @property
    def filename(self) -> str:
        """The last part of the path."""
        return posixpath.basename(self.path)

    @property
    def filepath(self) -> str:
        """The path under which the file can be opened here.

        Raises:
            ValueError: the file is remote and has not been staged to here.
        """
        if self.local_path is not None:
            return self.local_path
        if self.scheme == "file":
            return self.path
        raise ValueError(f"No local_path set for {self!r}: it can be opened where it was staged, inside an app")

    def cleancopy(self) -> File:
        """Return the same file without its local copy."""
        clean = copy.copy(self)
        clean.local_path = None
        return clean

    def __fspath__(self) -> str:
        return self.filepath

    def __str__(self) -> str:
        return self.url if self.local_path is None and self.scheme != "file" else self.filepath

    def __repr__(self) -> str:
        where = "" if self.local_path is None else f" at {self.local_path!r}"
        return f"<{type(self).__name__} {self.url!r}{where}>"

    def __eq__(self, other: object) -> bool:
        return self._place() == other._place() if isinstance(other, File) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._place())

    def _place(self) -> tuple[str, ...]:
        if self.scheme != "file":
            return (self.scheme, self.url.partition(":")[2])
        return ("file", "" if self.netloc == "localhost" else self.netloc, self.path)


def _text(url: Any) -> str:
    try:
        text = os.fspath(url)
    except TypeError:
        text = None
    if not isinstance(text, str):
        raise TypeError(f"File takes a path or a URL, not {url!r}")
    if not text:
        raise ValueError("File takes a path or a URL; the string is empty")
    return text


def _split(scheme: str, url: str) -> tuple[str, str]:
    """Return host and path of a URL; in a file's, `?` and `#` are part of the path, as people write them."""
    if scheme != "file":
        parts = urlsplit(url)
        return parts.netloc, parts.path
    rest = url.partition(":")[2]
    netloc = ""
    if rest.startswith("//"):
        netloc, _, path = rest[2:].partition("/")
        rest = "/" + path
    return netloc, unquote(rest)
