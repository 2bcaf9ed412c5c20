"""Files: what their URLs mean, where they are opened, when they are equal."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcore.data_provider.files import File

names = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1).filter(
    lambda name: name not in {".", ".."}
)


@pytest.mark.parametrize(
    ("url", "scheme", "netloc", "path", "filename"),
    [
        ("data/in.txt", "file", "", "data/in.txt", "in.txt"),
        ("/a/b c.txt", "file", "", "/a/b c.txt", "b c.txt"),
        ("100%25.txt", "file", "", "100%25.txt", "100%25.txt"),
        ("what?#.txt", "file", "", "what?#.txt", "what?#.txt"),
        ("12:30:00.log", "file", "", "12:30:00.log", "12:30:00.log"),
        ("file:///a", "file", "", "/a", "a"),
        ("file:/a", "file", "", "/a", "a"),
        ("FILE://localhost/a/b", "file", "localhost", "/a/b", "b"),
        ("file:///a%20b/c%25", "file", "", "/a b/c%", "c%"),
        ("file:///a b#1?", "file", "", "/a b#1?", "a b#1?"),
        ("https://host:8080/x/y.csv?v=1", "https", "host:8080", "/x/y.csv", "y.csv"),
        ("zip:/a/b.zip/inside", "zip", "", "/a/b.zip/inside", "inside"),
        ("globus://endpoint/~/f", "globus", "endpoint", "/~/f", "f"),
    ],
)
def test_the_parts_of_a_url(url, scheme, netloc, path, filename):
    file = File(url)
    assert (file.url, file.scheme, file.netloc, file.path, file.filename) == (url, scheme, netloc, path, filename)


@given(names)
def test_any_path_round_trips_by_itself_as_path_object_and_as_url(name):
    path = Path("/folder", name)
    assert File(str(path)).filepath == str(path)
    assert File(path).filepath == str(path)
    assert File(path.as_uri()).filepath == str(path)


@given(names)
def test_a_path_object_is_never_taken_for_a_url(name):
    assert File(Path("http:/", name)).scheme == "file"


def test_a_local_file_can_be_opened(tmp_path):
    (tmp_path / "a").write_text("text")
    with open(File(tmp_path / "a")) as stream:
        assert stream.read() == "text"
    assert str(File(tmp_path / "a")) == str(tmp_path / "a")


def test_a_remote_file_has_no_path_until_it_is_staged():
    file = File("http://host/a.txt")
    with pytest.raises(ValueError, match="No local_path set for"):
        file.filepath  # noqa: B018 - raises
    with pytest.raises(ValueError, match=r"http://host/a\.txt"):
        file.__fspath__()
    assert str(file) == "http://host/a.txt"
    file.local_path = "/data/a.txt"
    assert file.filepath == file.__fspath__() == str(file) == "/data/a.txt"


def test_a_clean_copy_is_the_same_file_without_its_local_copy():
    file = File("http://host/a.txt")
    file.local_path = "/data/a.txt"
    clean = file.cleancopy()
    assert clean == file
    assert clean.local_path is None
    assert file.local_path == "/data/a.txt"
    assert File(Path("http:/x")).cleancopy().scheme == "file"


def test_files_are_equal_if_they_name_one_place():
    assert File("file:///a%20b") == File("/a b") == File("file://localhost/a b")
    assert len({File("/a"), File("file:///a"), File(Path("/a"))}) == 1
    assert File("/a") != File("/b")
    assert File("http://h/a?v=1") != File("http://h/a?v=2")
    assert File("HTTP://h/a") == File("http://h/a")
    assert File("/a") != "/a"


def test_files_survive_pickling_with_their_local_path():
    file = File("http://host/a.txt")
    file.local_path = "/data/a.txt"
    again = pickle.loads(pickle.dumps(file))
    assert again == file
    assert again.filepath == "/data/a.txt"
    assert vars(again) == vars(file)


def test_the_repr_shows_url_and_local_path():
    file = File("http://host/a.txt")
    assert repr(file) == "<File 'http://host/a.txt'>"
    file.local_path = "/data/a.txt"
    assert repr(file) == "<File 'http://host/a.txt' at '/data/a.txt'>"


@pytest.mark.parametrize("bad", [None, 3, b"/a", ["a"]])
def test_what_is_no_path_is_a_type_error(bad):
    with pytest.raises(TypeError, match="path or a URL"):
        File(bad)


def test_an_empty_path_is_refused():
    with pytest.raises(ValueError, match="empty"):
        File("")
