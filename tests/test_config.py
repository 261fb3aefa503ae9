"""Configuration by bench.toml and environment variables."""

from pathlib import Path

import pytest

from bench.config import load_config

TOML = """
cache = "~/cache"
db = "~/results.db"
plugins = ["~/tiny.py", "here.py"]
[weights]
resnet18 = "~/r.pth"
[data.mine]
adapter = "adni"
root = "~/ADNI"
table = ["~/ADNIMERGE.csv", "DXSUM.csv"]
withdrawals = "~/w.csv"
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("BENCH_CACHE", "BENCH_DB", "BENCH_PLUGINS", "BENCH_ROOT_MINE", "BENCH_TABLE_MINE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_a_home_folder_is_understood_in_every_path(home):
    (home / "bench.toml").write_text(TOML)
    config = load_config(home)
    assert config.cache == home / "cache"
    assert config.db == f"{home}/results.db"
    assert config.plugins == (f"{home}/tiny.py", "here.py")
    assert config.weights == {"resnet18": f"{home}/r.pth"}
    assert config.data["mine"] == {
        "adapter": "adni",
        "root": f"{home}/ADNI",
        "table": f"{home}/ADNIMERGE.csv\nDXSUM.csv",
        "withdrawals": f"{home}/w.csv",
    }


def test_the_environment_is_understood_alike(home, monkeypatch):
    monkeypatch.setenv("BENCH_CACHE", "~/cache")
    monkeypatch.setenv("BENCH_DB", "~/x.db")
    monkeypatch.setenv("BENCH_PLUGINS", "~/a.py:~/b.py")
    monkeypatch.setenv("BENCH_ROOT_ADNI", "~/ADNI")
    config = load_config(home)
    assert (config.cache, config.db) == (home / "cache", f"{home}/x.db")
    assert config.plugins == (f"{home}/a.py", f"{home}/b.py")
    assert config.data["adni"] == {"root": f"{home}/ADNI"}


def test_one_plugin_needs_no_list(home):
    (home / "bench.toml").write_text('plugins = "tiny.py"')
    assert load_config(home).plugins == ("tiny.py",)


def test_a_name_that_begins_with_a_tilde_is_no_home_of_anybody(home):
    (home / "bench.toml").write_text('db = "~no-such-user.db"')
    assert load_config(home).db == str(Path("~no-such-user.db"))
