"""Recorded git revisions, and refusal of databases that are tracked by git."""

import os
import subprocess

import pytest

from bench.execute import provenance as asked
from bench.execute.provenance import git_revision, provenance, refuse_tracked_file
from registry.errors import UserError

IDENTITY = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_CONFIG_GLOBAL": os.devnull}
IDENTITY |= {"GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}

pytestmark = pytest.mark.git


def git(folder, *words):
    done = subprocess.run(
        ["git", "-C", folder, *words],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, **IDENTITY},
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path):
    """A repository with a tracked file in a subdirectory."""
    folder = tmp_path / "paper"
    (folder / "runs").mkdir(parents=True)
    (folder / "runs" / "old.db").touch()
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    return folder


def test_the_users_revision_is_not_recorded_as_ours(repository, monkeypatch):
    """slicebench is installed in an environment inside the repository of a paper."""
    environment = repository / ".venv" / "site-packages"
    environment.mkdir(parents=True)
    monkeypatch.setattr(asked, "SOURCE", environment)
    monkeypatch.chdir(repository / "runs")
    found = provenance(["bench", "run"])
    assert found.git is None
    assert found.user_git == git(repository, "rev-parse", "HEAD")
    (repository / "runs" / "old.db").write_text("changed")
    assert provenance([]).user_git == found.user_git + "+dirty"
    # Even in the root of that repository, it is not a checkout of slicebench.
    monkeypatch.setattr(asked, "SOURCE", repository)
    assert provenance([]).git is None


def test_our_revision_is_that_of_our_checkout(repository, monkeypatch, tmp_path):
    (repository / "pyproject.toml").write_text('[project]\nname = "slicebench"\n')
    monkeypatch.setattr(asked, "SOURCE", repository)
    monkeypatch.chdir(tmp_path)
    assert provenance([]).git == git(repository, "rev-parse", "HEAD")
    assert provenance([]).user_git is None
    monkeypatch.chdir(repository)
    assert provenance([]).git == git(repository, "rev-parse", "HEAD")
    assert provenance([]).user_git is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance([]).git is None


def test_a_folder_without_git_has_no_revision(tmp_path):
    assert git_revision(tmp_path) is None


@pytest.mark.parametrize("way", ["by its name", "by a link", "by a linked folder", "deleted"])
def test_a_tracked_file_is_refused_however_it_is_reached(repository, tmp_path, way):
    file = repository / "runs" / "old.db"
    (tmp_path / "link.db").symlink_to(file)
    (tmp_path / "linked").symlink_to(file.parent)
    named = {"by a link": tmp_path / "link.db", "by a linked folder": tmp_path / "linked/old.db"}
    if way == "deleted":
        file.unlink()
    with pytest.raises(UserError, match=r"old\.db is tracked by git"):
        refuse_tracked_file(named.get(way, file))


@pytest.mark.parametrize("name", ["new.db", "*.db", "old?db", ":(top)old.db", "-old.db"])
def test_other_files_of_a_repository_and_files_outside_are_not_refused(repository, tmp_path, name):
    (repository / "runs" / name).touch()
    refuse_tracked_file(repository / "runs" / name)
    refuse_tracked_file(tmp_path / name)
    refuse_tracked_file(tmp_path / "no" / "such" / "folder" / name)


def test_what_the_environment_tells_git_is_about_another_folder(repository, tmp_path, monkeypatch):
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    with pytest.raises(UserError, match="is tracked by git"):
        refuse_tracked_file(repository / "runs" / "old.db")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to somebody else")
def test_a_tracked_file_in_the_repository_of_somebody_else_is_refused(repository, tmp_path):
    marker = tmp_path / "ran"
    git(repository, "config", "core.fsmonitor", f"touch {marker}; false")
    marker.unlink(missing_ok=True)
    for place in [repository, *repository.rglob("*")]:
        os.chown(place, 4711, 4711)
    with pytest.raises(UserError, match="is tracked by git"):
        refuse_tracked_file(repository / "runs" / "old.db")
    assert not marker.exists()


def test_without_git_a_run_goes_on_and_says_what_was_not_asked(
    repository, tmp_path, monkeypatch, caplog
):
    monkeypatch.setenv("PATH", str(tmp_path))
    refuse_tracked_file(tmp_path / "new.db")
    assert not caplog.messages
    refuse_tracked_file(repository / "runs" / "old.db")
    assert "git cannot be run to check whether it tracks" in caplog.text


def test_a_repository_that_git_cannot_read_is_refused_with_a_remedy(repository):
    (repository / ".git" / "index").write_bytes(b"broken")
    with pytest.raises(UserError, match=r"could not be determined .*--db"):
        refuse_tracked_file(repository / "runs" / "old.db")
