"""Atomic writing: a file is either the old one or the complete new one."""

import pytest

from bench.files import atomic_write, remove_parts


def test_a_reader_sees_the_old_file_until_the_new_one_is_whole(tmp_path):
    file = tmp_path / "a.csv"
    file.write_bytes(b"old")
    with atomic_write(file) as stream:
        stream.write(b"new")
        stream.flush()
        assert file.read_bytes() == b"old"
    assert file.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [file]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    file = tmp_path / "a.csv"
    file.write_bytes(b"old")

    def fail():
        with atomic_write(file) as stream:
            stream.write(b"ne")
            raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        fail()
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


def test_two_writers_of_one_file_do_not_share_what_they_write_into(tmp_path):
    file = tmp_path / "a.csv"
    with atomic_write(file) as one, atomic_write(file) as other:
        one.write(b"one")
        other.write(b"other")
    assert file.read_bytes() == b"one"


def test_what_a_killed_writer_left_is_removed_and_no_other_file(tmp_path):
    file = tmp_path / "checkpoint.pt"
    for name in ("checkpoint.pt", ".checkpoint.pt-0123abcd", ".other.pt-0123abcd"):
        (tmp_path / name).write_bytes(b"")
    remove_parts(file)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".other.pt-0123abcd", "checkpoint.pt"]
