"""Locks are exclusive, released when a process dies, and work without flock."""

import errno
import fcntl
import os
import signal
import socket
import stat
import subprocess
import sys

import pytest
from filelock import Timeout

from bench.execute.lock import driver_lock
from bench.lock import locked
from registry.errors import UserError

HOLDER = """
import errno, fcntl, sys, time
if sys.argv[2] != "0":
    def refuse(*_):
        raise OSError(int(sys.argv[2]), "no locks here")
    fcntl.flock = refuse
from pathlib import Path
from bench.execute.lock import driver_lock
from bench.lock import locked
with (driver_lock if sys.argv[3] == "driver" else locked)(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""
NO_LOCKS = [errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS]


@pytest.fixture
def holder(request):
    """Start a process that holds a lock."""
    started = []

    def start(file, code=0, kind="plain"):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, file, str(code), kind], stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def flock(request, monkeypatch):
    """Let flock fail with an error code, as on some network file systems; 0 restores it."""

    def answer(code):
        def refuse(*_):
            raise OSError(code, os.strerror(code))

        if code:
            monkeypatch.setattr(fcntl, "flock", refuse)

    return answer


@pytest.mark.parametrize("code", [0, *NO_LOCKS])
def test_a_lock_is_held_by_one_process_and_freed_by_its_death(tmp_path, holder, flock, code):
    file = tmp_path / "new" / "x.lock"
    process = holder(file, code)
    flock(code)
    with pytest.raises(Timeout), locked(file, wait=False):
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    with locked(file):
        pass
    with locked(file, wait=False):
        pass
    assert [each.name for each in file.parent.iterdir()] == ["x.lock"]


@pytest.mark.parametrize("code", [0, *NO_LOCKS])
def test_a_second_driver_is_told_who_the_first_is(tmp_path, holder, flock, code):
    process = holder(tmp_path / "x.db", code, "driver")
    flock(code)
    words = f"writing to .*x.db: process {process.pid} on {socket.gethostname()} since"
    with pytest.raises(UserError, match=words), driver_lock(tmp_path / "x.db"):
        pass
    process.kill()
    process.wait()
    with driver_lock(tmp_path / "x.db"):
        pass


def test_a_disk_without_locks_is_no_other_run(tmp_path, flock):
    flock(errno.ENOTSUP)
    with driver_lock(tmp_path / "x.db"), locked(tmp_path / "y.lock"):
        pass
    assert sorted(os.listdir(tmp_path)) == ["x.db.lock", "y.lock"]


def test_what_a_dead_process_of_another_machine_left_is_named(tmp_path, flock):
    flock(errno.ENOTSUP)
    (tmp_path / "x.db.lock").write_text("process 7 on elsewhere since 2026-01-01 00:00:00 UTC")
    (tmp_path / "x.db.lock.held").write_text("7\nelsewhere\n")
    with (
        pytest.raises(UserError, match=r"process 7 on elsewhere .* delete .*x\.db\.lock\.held"),
        driver_lock(tmp_path / "x.db"),
    ):
        pass


def test_another_error_of_the_lock_is_said(tmp_path, flock):
    flock(errno.EIO)
    with (
        pytest.raises(UserError, match=r"lock file .*x\.db\.lock cannot be written \(Input/output"),
        driver_lock(tmp_path / "x.db"),
    ):
        pass


def test_a_link_and_its_file_have_one_lock(tmp_path, holder):
    (tmp_path / "link.db").symlink_to(tmp_path / "x.db")
    holder(tmp_path / "x.db", 0, "driver")
    with (
        pytest.raises(UserError, match="Another command"),
        driver_lock(tmp_path / "link.db"),
    ):
        pass


def test_the_group_may_lock_where_it_may_write(tmp_path):
    before = os.umask(0o002)
    try:
        with locked(tmp_path / "x.lock"), driver_lock(tmp_path / "x.db"):
            pass
    finally:
        os.umask(before)
    for name in ("x.lock", "x.db.lock"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o664


def test_errors_of_the_block_are_its_own(tmp_path):
    with pytest.raises(OSError, match="mine"), driver_lock(tmp_path / "x.db"):
        raise OSError("mine")
