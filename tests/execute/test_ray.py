"""`bench run --executor ray` on a real cluster of three nodes, and on this machine."""

import dataclasses
import os
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bench.execute import ray as ray_executor
from bench.execute.ray import Options, RayExecutor
from bench.execute.ray_driver import Needs
from bench.store import schema
from bench.store.store import Store
from bench.unit import Outcome
from registry.errors import UserError
from tests.cli.readme import blocks, run_block
from tests.cli.running import ran
from tests.execute.processes import parents, workers_in
from tests.execute.ray_cluster import ancestors_of
from tests.execute.slurm_runs import GRID, LONG, local, run, wait_for
from tests.execute.test_kill import finish, results, wait_for_units

SMALL = (
    *("run", "--data", "synthetic-ad-4mm", "--model", "linear-voxels", "--train-sizes", "16"),
    *("--seeds", "2", "--trials", "0", "--threads", "1", "--precision", "fp32"),
)
RAY = ("--executor", "ray")


@pytest.fixture
def on_ray(ray_nodes):
    """Options of a command that uses the cluster."""
    return (*RAY, "--ray", f"address={ray_nodes.address}")


def name_of(process):
    return Path(f"/proc/{process}/comm").read_text().strip()


def descendants(process):
    """Return the processes that a process started, directly or not."""
    tree = parents()
    found = {process}
    while more := {pid for pid, parent in tree.items() if parent in found} - found:
        found |= more
    return found - {process}


def history(file):
    """Return the history of the only trial, with the duration of each epoch."""
    store = Store.for_reading(file)
    found = store.frame(schema.history).sort_values("epoch")[["epoch", "seconds"]]
    store.close()
    return found.values.tolist()


def attempts(file):
    store = Store.for_reading(file)
    found = store.frame(schema.attempts)
    store.close()
    return found


def test_a_suite_gives_the_same_numbers_as_on_this_machine(
    tmp_path, environment, on_ray, grid_results
):
    out = finish(run(tmp_path, environment, *GRID, *on_ray))
    assert "4 of 4 trials done" in out
    assert "ray::" not in out
    assert results(tmp_path / "x.db") == grid_results
    assert not (tmp_path / "x.db.work").exists()
    again = finish(run(tmp_path, environment, *GRID, *on_ray))
    assert "Nothing to run" in again


@pytest.mark.parametrize("lost", ["node", "worker"])
def test_a_unit_that_loses_its_node_or_worker_is_resumed(
    tmp_path, environment, on_ray, ray_nodes, long_results, lost
):
    import torch

    process = run(tmp_path, environment, *LONG, *on_ray)
    work = tmp_path / "x.db.work"
    (checkpoint,) = wait_for(lambda: list(work.glob("*/checkpoint.pt")))
    (unit,) = workers_in(work)
    saved = torch.load(checkpoint, weights_only=True)["history"]
    if lost == "node":
        ray_nodes.replace(unit)
    else:
        _fork_server, worker, *_ = ancestors_of(unit)
        os.kill(worker, signal.SIGKILL)
    wait_for(lambda: unit not in parents())
    out = finish(process)
    assert f"its Ray {lost} was lost" in out
    assert "1 of 1 trials done" in out
    assert results(tmp_path / "x.db") == long_results
    assert saved
    assert history(tmp_path / "x.db")[: len(saved)] == [
        [line["epoch"], line["seconds"]] for line in saved
    ]
    assert sorted(attempts(tmp_path / "x.db")["state"]) == ["done", "killed"]


def test_a_killed_driver_takes_its_units_along_and_starting_again_gives_the_same(
    tmp_path, environment, on_ray, grid_results
):
    process = run(tmp_path, environment, *GRID, *on_ray)
    wait_for_units(process, 1)
    work = tmp_path / "x.db.work"
    wait_for(lambda: workers_in(work))
    process.kill()
    process.wait()
    wait_for(lambda: not workers_in(work), seconds=20)
    stored = set(attempts(tmp_path / "x.db")["unit"])
    published = {folder.parent.name for folder in work.glob("*/outcome")}
    out = finish(run(tmp_path, environment, *GRID, *on_ray))
    assert "trials done" in out
    assert results(tmp_path / "x.db") == grid_results
    found = attempts(tmp_path / "x.db")
    assert stored
    assert stored | published <= set(found["unit"])
    # No unit ran again after its outcome was written.
    assert list(found["state"]) == ["done"] * 6
    assert found["unit"].is_unique


@pytest.mark.parametrize("how", ["killed", "interrupted", "without its raylet"])
def test_nothing_remains_of_a_cluster_on_this_machine(tmp_path, environment, how):
    pytest.importorskip("ray")
    words = [*LONG, *RAY, "--workers", "1"]
    words[words.index("--seeds") + 1] = "2"
    if how == "without its raylet":
        # The running unit ends, but no other one can start.
        words[words.index("--epochs") + 1] = "2"
    process = run(tmp_path, environment, *words)
    work = tmp_path / "x.db.work"
    wait_for(lambda: workers_in(work))
    started = descendants(process.pid)
    assert len(started) > 3
    if how == "killed":
        process.kill()
        process.wait()
    elif how == "without its raylet":
        (raylet,) = [pid for pid in started if name_of(pid) == "raylet"]
        os.kill(raylet, signal.SIGKILL)
        out = finish(process)
        assert process.returncode == 2, out
        assert "The connection to Ray was lost" in out
        assert "Traceback" not in out
    else:
        os.killpg(process.pid, signal.SIGINT)
        for line in process.stdout:
            if "Waiting for running trials" in line:
                break
        assert workers_in(work)
        os.killpg(process.pid, signal.SIGINT)
        out = finish(process)
        assert process.returncode == 1
        assert "Stopped on request" in out
    wait_for(lambda: not started & parents().keys(), seconds=30)
    assert not workers_in(work)


def test_a_cohort_that_nodes_do_not_see_is_copied_once(
    tmp_path, environment, cache, on_ray, ray_nodes
):
    """The command runs with a file system for its cache that the nodes do not see."""
    expected = local(tmp_path, cache, SMALL)
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    copy = f"cp -a {shlex.quote(str(cache))}/. {shlex.quote(str(hidden))}"
    for name in ("y.db", "z.db"):
        command = shlex.join([sys.executable, "-m", "bench", *SMALL, *on_ray, "--db", name])
        there = {**environment, "BENCH_CACHE": str(hidden)}
        done = unseen(hidden, f"{copy} && {command}", tmp_path, there)
        assert done.returncode == 0, done.stdout + done.stderr
        assert ("Copying" in done.stdout) == (name == "y.db")
        assert results(tmp_path / name) == expected
    (copied,) = [file for file in ray_nodes.copies if file.is_file()]
    volumes = list(cache.glob("volumes/*/volumes.npy"))
    assert copied.read_bytes() in [file.read_bytes() for file in volumes]


def test_a_directory_that_nodes_do_not_see_is_found_before_any_unit_runs(
    tmp_path, environment, on_ray
):
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    command = shlex.join([sys.executable, "-m", "bench", *SMALL, *on_ray])
    done = unseen(hidden, f"cd {shlex.quote(str(hidden))} && {command}", tmp_path, environment)
    assert done.returncode == 2, done.stdout + done.stderr
    message = done.stderr.strip()
    assert message.startswith("Error: The Ray node ")
    assert f"does not see {hidden}" in message
    assert len(message.splitlines()) == 1


def unseen(folder, command, cwd, environment):
    """Run a command in a mount namespace with an empty file system in a directory."""
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("needs mount namespaces")
    mount = f"mount -t tmpfs tmpfs {shlex.quote(str(folder))}"
    return subprocess.run(
        ["unshare", "--mount", "sh", "-c", f"{mount} && {command}"],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_the_readme_works_as_written(tmp_path, environment, ray_nodes):
    (block,) = blocks("A Ray cluster")
    there = {**environment, "RAY_ADDRESS": ray_nodes.address}
    done = run_block(block, tmp_path, there)
    assert "4 of 4 trials done" in ran(done)


def start(tmp_path, said=None, **options):
    return RayExecutor(
        0,
        gpus=0,
        preload=[],
        on_progress=lambda *_: None,
        options=options,
        work=tmp_path / "work",
        cache=tmp_path / "cache",
        say=print if said is None else said.append,
    )


@pytest.mark.slow
def test_units_share_gpus_or_see_those_of_their_node(make, tmp_path, ray_nodes):
    unit = dataclasses.replace(make("visible", "a" * 16), network=True, device="cuda")
    with ray_nodes.more(num_gpus=2, num_cpus=4):
        for share, expected in ((0.5, ["0", "0", "1", "1"]), (0, ["None"] * 4)):
            executor = start(tmp_path, address=ray_nodes.address, num_gpus=share)
            folders = [tmp_path / "work" / f"{share}-{number}" for number in range(4)]
            futures = [
                executor.submit(dataclasses.replace(unit, key=folder.name, folder=str(folder)))
                for folder in folders
            ]
            for future in futures:
                assert future.result(timeout=120).exit_code == 0
            executor.shutdown()
            seen = [Outcome.read(folder / "outcome").error.split()[1] for folder in folders]
            assert sorted(seen) == expected


@pytest.mark.slow
def test_a_unit_waits_for_a_node_that_it_fits_on(make, tmp_path, ray_nodes):
    said = []
    executor = start(tmp_path, said, address=ray_nodes.address, resources="fast=1")
    future = executor.submit(make("prior", "a" * 16))
    wait_for(lambda: len(said) == 2)
    assert said[1] == "No node of the Ray cluster has num_cpus=1, fast=1; waiting for one."
    with ray_nodes.more(num_cpus=1, resources={"fast": 1}):
        assert future.result(timeout=120).exit_code == 0
        executor.shutdown()


@pytest.mark.slow
def test_more_than_this_machine_has_is_one_sentence(make, tmp_path):
    pytest.importorskip("ray")
    executor = start(tmp_path, resources={"fast": 1})
    future = executor.submit(make("prior", "a" * 16))
    with pytest.raises(UserError, match=r"This machine does not have the resources .* fast=1"):
        future.result(timeout=60)
    executor.shutdown()


@pytest.mark.slow
def test_a_cluster_with_another_version_or_none_at_all_is_one_sentence(tmp_path, monkeypatch):
    pytest.importorskip("ray")
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        RayExecutor.check({"address": address})
        monkeypatch.setattr(ray_executor, "START_SECONDS", 5)
        with pytest.raises(UserError, match=f"cannot use the Ray cluster at {address}: "):
            start(tmp_path, address=address)
    with pytest.raises(UserError, match=f"No Ray cluster answers at {address} .*refused"):
        RayExecutor.check({"address": address})


def test_ray_asked_for_and_absent_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"install it with `pip install 'slicebench\[ray\]'`"):
        RayExecutor.check({})


def test_a_command_says_what_is_wrong_with_its_options(bench):
    pytest.importorskip("ray")
    done = bench(*SMALL, *RAY, "--ray", "gpus=1")
    assert done.returncode == 2
    assert done.stderr.strip() == (
        "Error: --ray gpus is unknown; use one of address, memory, num_cpus, num_gpus, resources."
    )
    done = bench(*SMALL, "--ray", "num_gpus=1")
    assert "--ray requires --executor ray" in done.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("num_cpus", "0"), ("num_cpus", "1.5"), ("num_gpus", "1.5"), ("num_gpus", "-1")),
        *(("memory", "much"), ("resources", "fast"), ("resources", "fast=0")),
        *(("address", "ray://host:10001"), ("address", "host")),
    ],
)
def test_values_that_ray_does_not_accept_are_one_sentence(name, value):
    with pytest.raises(UserError, match=f"--ray {name} must be"):
        Options.parse({name: value})


def test_options_may_be_spelled_as_in_toml_or_on_the_command_line():
    line = {"num_gpus": "0.25", "num_cpus": "2", "memory": "8GB", "resources": "a=1,b=0.5"}
    toml = {"num_gpus": 0.25, "num_cpus": 2, "memory": 8e9, "resources": {"a": 1, "b": 0.5}}
    assert Options.parse(line) == Options.parse(toml)
    assert RayExecutor.threads(line) == 2
    assert RayExecutor.threads({}) == 1


@pytest.mark.parametrize(
    ("needs", "fit"),
    [
        (Needs(1), 8),
        (Needs(3), 2),
        (Needs(1, gpus=0.3), 6),
        (Needs(1, gpus=2), 1),
        (Needs(1, memory=6_000), 2),
        (Needs(1, resources=(("fast", 1),)), 0),
    ],
)
def test_as_many_units_fit_on_a_node_as_ray_runs_there(needs, fit):
    assert needs.fit({"CPU": 8, "GPU": 2, "memory": 16_000}) == fit
