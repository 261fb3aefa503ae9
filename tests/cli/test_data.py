"""``bench data`` on directory trees like those of real cohorts."""

from __future__ import annotations

import csv
import html.parser
import os
import random
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
import typer

from bench.cli.progress import stoppable
from tests.cli.running import ran
from tests.data.trees import adni, aibl, bids, clinica, ixi, oasis1, oasis2, oasis3, ukbb

SMALL = ("--data-set", "grid=mni-4mm")


def refused(process: subprocess.CompletedProcess) -> str:
    assert process.returncode == 2
    assert "Traceback" not in process.stderr
    return " ".join(process.stderr.split())


class Page(html.parser.HTMLParser):
    """The cells of the tables of an HTML page, its images, and the URLs that it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.cells: dict[str, list[str]] = {}
        self.pictures: list[dict] = []
        self.fetched: list[str] = []
        self._table, self._in_cell = "", False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        if tag == "table":
            self._table = found["id"]
        if tag in ("td", "th"):
            self.cells.setdefault(self._table, []).append("")
            self._in_cell = True
        if tag == "img":
            self.pictures.append(found)
        self.fetched += [found[name] for name in ("src", "href") if name in found]

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self._in_cell = False

    def handle_data(self, data):
        if self._in_cell:
            self.cells[self._table][-1] += data


def test_check_says_what_is_there_and_shows_it(bench, tmp_path) -> None:
    adni.write(tmp_path / "ADNI", registered=True)
    out = ran(bench("data", "check", "adni", "--root", "ADNI", *SMALL, "--html", "adni.html"))
    for words in ("scans found", "left out: no diagnosis", "Balance of the split", "looks unregis"):
        assert words in out
    text = (tmp_path / "adni.html").read_text()
    page = Page(text)
    assert page.cells["flow"][:4] == ["step", "n", "scans found", "24"]
    assert page.cells["left-out"][3] == adni.NOT_CHOSEN
    ran(bench("data", "manifest", "adni", "--root", "ADNI", *SMALL, "--out", "m.csv"))
    manifest = pd.read_csv(tmp_path / "m.csv", dtype=str, keep_default_na=False)
    left_out = manifest.loc[manifest["used"] == "no", ["reason", "subject_id", "path"]]
    assert page.cells["all-left-out"][:3] == ["reason", "subject", "path"]
    assert sorted(zip(*[iter(page.cells["all-left-out"][3:])] * 3, strict=True)) == sorted(
        map(tuple, left_out.to_numpy())
    )
    assert len(page.pictures) == 17
    assert all(picture["alt"] for picture in page.pictures)
    assert all(place.startswith(("data:image/png;base64,", "#")) for place in page.fetched)
    assert text.count("<script") == 1


def test_check_reads_a_damaged_scan_and_goes_on(bench, tmp_path) -> None:
    adni.write(tmp_path / "ADNI", registered=True)
    file = next((tmp_path / "ADNI").rglob(f"*{adni.ptid(2)}*.nii"))
    file.write_bytes(file.read_bytes()[:2000])
    out = ran(bench("data", "check", "adni", "--root", "ADNI", *SMALL))
    assert "left out: the header promises more voxels than the file holds" in out


def test_check_of_a_cohort_that_cannot_be_used_says_so_at_the_end(bench, tmp_path) -> None:
    adni.write(tmp_path / "ADNI", n_subjects=32)
    found = bench("data", "check", "adni", "--root", "ADNI", *SMALL)
    assert "--space native" in refused(found)
    assert "scans found" in found.stdout
    few = bench(
        "data", "check", "adni", "--root", "ADNI", *SMALL, "--classes", "CN,MCI", "--space", "mni"
    )
    assert "The class 'MCI' of 'diagnosis' has" in refused(few)
    assert "scans found" in few.stdout


def test_a_folder_that_cannot_be_read_is_said_by_check_and_manifest(bench, tmp_path) -> None:
    bids.write(tmp_path / "b", n_subjects=20)
    (tmp_path / "b" / "sub-21").symlink_to("/nowhere/sub-21")
    (tmp_path / "b" / "sub-01" / "anat" / "sub-01_run-2_T1w.nii.gz").mkdir()
    words = ("bids", "--root", "b", "--target", "age")
    listed = ran(bench("data", "manifest", *words, "--out", "m.csv"))
    checked = ran(bench("data", "check", *words, *SMALL, "--space", "mni"))
    for out in (" ".join(listed.split()), " ".join(checked.split())):
        assert "1 folder in" in out
        assert "the first is sub-21: a link to a folder that is not there" in out
        assert "left out: a folder, not a file" in out


def test_manifest_writes_one_row_a_scan(bench, tmp_path) -> None:
    expected = adni.write(tmp_path / "ADNI")
    words = ("data", "manifest", "adni", "--root", "ADNI", "--out", "m.csv")
    out = ran(bench(*words))
    assert "Found 24 scans; used: 17 scans of 16 subjects." in out
    with open(tmp_path / "m.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["subject_id"] for row in rows] == expected["subject_id"].tolist()
    assert {row["used"] for row in rows} == {"yes", "no"}
    assert "directory nowhere does not exist" in refused(bench(*words[:-1], "nowhere/m.csv"))


def test_tables_elsewhere_and_withdrawals_are_named(bench, tmp_path) -> None:
    (tmp_path / "UKB").mkdir()
    ukbb.write(tmp_path / "UKB")
    (tmp_path / "UKB" / "ukb.csv").rename(tmp_path / "fields.csv")
    (tmp_path / "w.csv").write_text(f"{ukbb.eid(1)}\n")
    words = ("data", "manifest", "ukbb", "--root", "UKB", "--out", "m.csv")
    assert "Tables found: none" in refused(bench(*words))
    out = ran(bench(*words, "--table", "fields.csv", "--withdrawals", "w.csv"))
    assert "left out: withdrawn: 1" in out


def test_prepare_says_what_a_crop_saves_and_list_what_is_ready(bench, tmp_path) -> None:
    adni.write(tmp_path / "ADNI", registered=True)
    (tmp_path / "bench.toml").write_text(f'[data.adni]\nroot = "{tmp_path / "ADNI"}"\n')
    cache = {"BENCH_CACHE": str(tmp_path / "cache")}
    listed = ran(bench("data", "list", **cache))
    assert listed.splitlines()[2].split()[-1] == "no"
    out = ran(bench("data", "prepare", "adni", *SMALL, "--crop", "brain", **cache))
    assert "38 x 47 x 40 voxels after cropping from 46 x 55 x 46 (39% fewer)" in out
    assert "adni is ready" in out
    assert "mni-4mm cropped, 17 scans" in ran(bench("data", "list", **cache))
    again = ran(bench("data", "prepare", "adni", *SMALL, "--crop", "brain", "--verify", **cache))
    assert "preparing scan" not in again


def test_roots_and_tables_come_from_the_environment(bench, tmp_path) -> None:
    (tmp_path / "UKB").mkdir()
    ukbb.write(tmp_path / "UKB")
    (tmp_path / "UKB" / "ukb.csv").rename(tmp_path / "fields.csv")
    place = {
        "BENCH_ROOT_UKBB": str(tmp_path / "UKB"),
        "BENCH_TABLE_UKBB": str(tmp_path / "fields.csv"),
    }
    assert "Found 25 scans" in ran(bench("data", "manifest", "ukbb", "--out", "m.csv", **place))
    assert "fields.csv" in ran(bench("data", "list", **place))


def test_preview_draws_a_picture(bench, tmp_path) -> None:
    adni.write(tmp_path / "ADNI", registered=True)
    ran(bench("data", "preview", "adni", "--root", "ADNI", *SMALL, "--out", "p.png"))
    assert (tmp_path / "p.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    words = refused(bench("data", "preview", "adni", "--root", "ADNI", *SMALL, "--out", "p.doc"))
    assert "--out p.doc" in words


def test_skull_stripping_names_the_tools(bench, tmp_path) -> None:
    words = refused(bench("data", "prepare", "adni", "--root", str(tmp_path), "--skull-strip"))
    assert "SynthStrip, HD-BET, FSL's BET or ANTs" in words


@pytest.mark.parametrize("option", ["table", "visits"])
def test_an_option_given_twice_is_refused(option: str, bench, tmp_path) -> None:
    words = ("--data-set", f"{option}=all", f"--{option}", "all")
    assert "was given twice" in refused(bench("data", "check", "adni", "--root", ".", *words))


TREES = {
    "adni": (lambda root: adni.write(root, registered=True), ()),
    "aibl": (aibl.write, ("--space", "native")),
    "oasis1": (oasis1.write, ("--space", "native")),
    "oasis2": (oasis2.write, ("--space", "native")),
    "oasis3": (oasis3.write, ("--space", "native")),
    "ixi": (ixi.write, ("--space", "native")),
    "ukbb": (ukbb.write, ("--target", "age")),
    "clinica": (clinica.write_bids, ("--space", "native")),
    "caps": (lambda root: (clinica.write_caps(root), clinica.write_tables(root)), ()),
}


@pytest.mark.parametrize("name", TREES)
def test_check_prepare_run_and_report_work_on_every_cohort(name: str, bench, tmp_path) -> None:
    write, more = TREES[name]
    (tmp_path / "TREE").mkdir()
    write(tmp_path / "TREE")
    cohort = ("--root", "TREE", *SMALL, *more)
    cache = {"BENCH_CACHE": str(tmp_path / "cache")}
    checked = ran(bench("data", "check", name, *cohort, **cache))
    prepared = ran(bench("data", "prepare", name, *cohort, **cache))
    words = ("--model", "linear-voxels,prior", "--data", name, "--seeds", "2", "--trials", "0")
    out = ran(bench("run", *words, *cohort, "--db", "runs.db", **cache))
    assert "4 of 4 trials done" in out
    assert "preparing scan" not in out
    ran(bench("report", "--db", "runs.db", "--format", "html", "--out", "r.html", **cache))
    flow = Page((tmp_path / "r.html").read_text()).cells["flow"]
    steps = dict(zip(flow[2::2], flow[3::2], strict=True))
    for step, n in steps.items():
        if step.startswith(("scans", "left out", "subjects used")):
            assert f"{step}: {n}" in prepared
            assert step.split(":")[-1].strip()[:20] in checked


@pytest.mark.slow
def test_prepare_killed_at_random_moments_gives_the_undisturbed_cache(bench, tmp_path) -> None:
    oasis3.write(tmp_path / "TREE", n_subjects=60)
    words = [sys.executable, "-m", "bench", "data", "prepare", "oasis3", "--root", "TREE", *SMALL]
    words += ["--space", "native", "--workers", "2"]
    draw, caches = random.Random(1), [tmp_path / "killed", tmp_path / "whole"]
    for _ in range(10):
        environment = {**os.environ, "BENCH_CACHE": str(caches[0])}
        process = subprocess.Popen(words, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL)
        time.sleep(draw.uniform(1, 4))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    for cache in caches:
        ran(bench(*words[3:], BENCH_CACHE=str(cache)))
    one, other = (next((cache / "volumes").iterdir()) for cache in caches)
    assert one.name == other.name
    for file in ("volumes.npy", "index.csv"):
        assert (one / file).read_bytes() == (other / file).read_bytes()


@pytest.mark.parametrize("command", [("data", "prepare", "oasis3"), ("run", "--data", "oasis3")])
def test_ctrl_c_while_scans_are_read_is_a_sentence(command, bench, tmp_path) -> None:
    # Enough scans to interrupt reading them even on a busy machine.
    oasis3.write(tmp_path / "TREE", n_subjects=250)
    words = [sys.executable, "-m", "bench", *command, "--root", "TREE", "--space", "native"]
    if command[0] == "run":
        words += ["--model", "prior", "--seeds", "2", "--db", "x.db"]
    environment = {**os.environ, "BENCH_CACHE": str(tmp_path / "cache")}
    process = subprocess.Popen(
        words,
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        # As in a terminal; background jobs of a shell would ignore the signal.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while not list((tmp_path / "cache").glob("cohorts/*/.building-*/rows.jsonl")):
        time.sleep(0.01)
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert "Stopped on request; run the same command again to resume" in process.communicate()[0]
    assert process.returncode == 1


class Interrupted:
    def __set_name__(self, owner, name) -> None:
        raise KeyboardInterrupt


def test_ctrl_c_while_a_class_is_made_is_a_sentence(capsys) -> None:
    with pytest.raises(typer.Exit), stoppable():
        type("Some", (), {"part": Interrupted()})
    assert "Stopped on request" in capsys.readouterr().out


def test_other_errors_pass_through() -> None:
    with pytest.raises(RuntimeError, match="ours"), stoppable():
        raise RuntimeError("ours")
