"""Sweeps: a local pool that loses a worker, a Dask cluster that loses one, results that add up."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import partialsum as ps
from partialsum.cli.sweep import _line
from partialsum.experiments.executors import dask_cluster, local_pool
from partialsum.experiments.folder import RunFolder
from partialsum.experiments.results import gather, read_results, write_results
from partialsum.experiments.summary import summarise
from partialsum.experiments.sweep import Status, Sweep, load_sweep, run_sweep
from tools import require_tool

TABLE: dict[str, Any] = {
    "name": "s",
    "baseline": "wide",
    "model": {"name": "mlp", "width": 8},
    "data": {"name": "digits", "train": 200, "test": 50},
    "training": {"steps": 10, "batch": 16, "evaluate_every": 5, "log_every": 1, "checkpoint_steps": 2},
    "sweep": {"training.seed": [0, 1]},
    "member": [{"name": "wide"}, {"name": "narrow", "accumulator": {"man_bits": 2}}],
}
LONG = {**TABLE, "training": {**TABLE["training"], "steps": 60}}
PATIENCE_S = 120.0


@contextlib.contextmanager
def here() -> Iterator[Executor]:
    """Any executor will do: runs in threads of one process take turns."""
    with ThreadPoolExecutor(2) as pool:
        yield pool


def outcomes(sweep: Sweep, folder: Path) -> dict[str, str]:
    results = {member.name: RunFolder(folder / member.folder).result() for member in sweep.members}
    return {name: result["weights_sha256"] for name, result in results.items() if result is not None}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder, sweep = tmp_path_factory.mktemp("undisturbed"), load_sweep(LONG)
    run_sweep(sweep, folder, here)
    return outcomes(sweep, folder)


def test_results_add_up(tmp_path: Path) -> None:
    sweep, seen = load_sweep(TABLE), list[Status]()
    results = run_sweep(sweep, tmp_path, here, notify=seen.append)
    assert [result["name"] for result in results] == ["s"] * 4
    assert sum(status.latest is not None for status in seen) == 4
    assert seen[-1].finished == 4
    assert seen[-1].steps == seen[-1].all_steps == 40
    found = gather(sweep, tmp_path, "source")
    write_results(found, tmp_path / "results.json")
    assert read_results(tmp_path / "results.json") == found
    wide, narrow = summarise(found)
    accuracies = [run["test_accuracy"] for run in found["runs"]]
    assert wide.accuracy == pytest.approx(50 * (accuracies[0] + accuracies[1]))
    assert (wide.gap, wide.gap_error, wide.seeds) == (0, 0, 2)
    gaps = [100 * (accuracies[0] - accuracies[2]), 100 * (accuracies[1] - accuracies[3])]
    assert narrow.gap == pytest.approx(sum(gaps) / 2)
    assert narrow.gap_error == pytest.approx(abs(gaps[0] - gaps[1]) / 2)
    assert found["runs"][0]["curve"]["train_step"] == list(range(1, 11))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("weights.pt")}
    run_sweep(sweep, tmp_path, here)
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("weights.pt")}


def test_the_time_left_counts_the_steps_of_this_call_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    half, seen = load_sweep({**TABLE, "sweep": {"training.seed": [0]}}), list[Status]()
    run_sweep(half, tmp_path, here)
    run_sweep(load_sweep(TABLE), tmp_path, here, notify=seen.append)
    assert {status.steps_found for status in seen} == {20}
    member, result = next(status.latest for status in seen if status.latest is not None)
    for status, words in (
        (Status(4, 3, 30, 40, 60.0, (member, result), 20), "; about 1 min left"),
        (Status(4, 2, 20, 40, 60.0, (member, result), 20), "%"),
    ):
        _line(status)
        assert capsys.readouterr().err.strip().endswith(words)


def test_results_of_something_else_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"schema": "partialsum/report/1"}))
    with pytest.raises(ps.InputError, match=r"does not hold results of a sweep \(partialsum/experiment/1\)"):
        read_results(path)


def kill_when_at_work(pids: Any, folder: Path, killed: list[int]) -> None:
    """Kill the first worker that is known, once some run is on its way."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        entries = [entry for run in folder.glob("*") for entry in RunFolder(run).metrics()]
        known = pids()
        if known and any(entry["step"] >= 4 for entry in entries):
            os.kill(known[0], signal.SIGKILL)
            killed.append(known[0])
            return
        time.sleep(0.005)


GIVES_WORK = """
import os, time
from partialsum.experiments.executors import local_pool

if __name__ == "__main__":
    with local_pool(1, 1) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        pool.submit(time.sleep, 1000)  # work without end
        time.sleep(1000)
"""


def test_workers_end_with_a_sweep_that_is_killed(tmp_path: Path) -> None:
    """Else they would go on alone, and keep the folders of their runs from the sweep's next start."""
    script = tmp_path / "sweep.py"  # a file: spawned workers import what started them
    script.write_text(GIVES_WORK)
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as sweep:
        assert sweep.stdout is not None
        worker = int(sweep.stdout.readline())
        os.kill(worker, 0)
        sweep.kill()
    until = time.monotonic() + PATIENCE_S
    while at_work(worker) and time.monotonic() < until:
        time.sleep(0.02)
    assert not at_work(worker)


def at_work(pid: int) -> bool:
    """Whether a process is there and no zombie that nobody has asked about yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_pool_that_loses_a_worker_loses_nothing(tmp_path: Path, undisturbed: dict[str, str]) -> None:
    sweep, killed, pools = load_sweep(LONG), list[int](), list[Any]()

    @contextlib.contextmanager
    def pool() -> Iterator[Executor]:
        with local_pool(1, 1) as executor:
            pools.append(executor)
            yield executor

    def workers() -> list[int]:
        return list((pools[0]._processes or {}) if pools else ())

    watcher = threading.Thread(target=kill_when_at_work, args=(workers, tmp_path, killed))
    watcher.start()
    run_sweep(sweep, tmp_path, pool)
    watcher.join()
    assert killed
    assert len(pools) > 1
    assert outcomes(sweep, tmp_path) == undisturbed


@pytest.mark.filterwarnings("ignore")  # what dask says about its own port and the workers it lost
def test_a_cluster_that_loses_a_worker_loses_nothing(tmp_path: Path, undisturbed: dict[str, str]) -> None:
    require_tool("distributed")
    from distributed import Client, LocalCluster

    sweep, killed = load_sweep(LONG), list[int]()
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1"
    ) as cluster:
        address = cluster.scheduler_address
        with Client(address, set_as_default=False) as client:
            pids = list(client.run(os.getpid).values())
        assert len(pids) == 2
        watcher = threading.Thread(target=kill_when_at_work, args=(lambda: pids, tmp_path, killed))
        watcher.start()
        results = run_sweep(sweep, tmp_path, lambda: dask_cluster(address))
        watcher.join()
    assert killed
    assert len(results) == 4
    assert outcomes(sweep, tmp_path) == undisturbed


def test_an_address_where_nobody_is(tmp_path: Path) -> None:
    require_tool("distributed")
    with pytest.raises(ps.InputError, match="must be the address of a Dask scheduler, got 'nowhere'"):
        run_sweep(load_sweep(TABLE), tmp_path, lambda: dask_cluster("nowhere"))
