"""Where a sweep's runs are executed: processes of this machine, or a Dask cluster."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import cast

from partialsum.errors import InputError

_LOST_WORKERS = 3
"""How many workers may die under a run on a cluster before it counts as failed (Dask's own limit)."""
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def pin_threads(threads: int) -> None:
    """Give this process, a worker, so many threads; set before torch is loaded, as its libraries read them once."""
    for variable in _THREAD_VARIABLES:
        os.environ[variable] = str(threads)


def start_worker(threads: int) -> None:
    """Pin a worker's threads, and end it when the process that gives it work dies, however that dies.

    A worker that outlives it would go on with its run, keep that folder from the sweep's next start, and then wait
    forever. Ending it loses nothing: runs continue from their checkpoints.
    """
    pin_threads(threads)
    threading.Thread(target=_end_with_parent, name="end with parent", daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


@contextmanager
def local_pool(jobs: int, threads: int) -> Iterator[Executor]:
    """Run in ``jobs`` processes of ``threads`` threads each."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=start_worker, initargs=(threads,)) as pool:
        try:
            yield pool
        except BaseException:
            # A worker would go on with its run, and with the next that it has fetched already. Ending it loses nothing.
            for process in list((pool._processes or {}).values()):
                process.terminate()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@contextmanager
def dask_cluster(address: str) -> Iterator[Executor]:
    """Run on the workers of the Dask scheduler at ``address``, such as ``tcp://10.0.0.1:8786``.

    A run whose worker dies is given to another, which continues from the last checkpoint; runs' folders must be on
    storage that all workers share. A worker trains one run at a time, whatever its number of threads.

    Raises :class:`InputError` where ``dask.distributed`` is not installed or nobody answers.
    """
    try:
        from distributed import Client
    except ImportError:
        raise InputError("--cluster needs dask.distributed: pip install 'partialsum[cluster]'") from None
    try:
        client = Client(address, timeout="10s", set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise InputError(f"--cluster must be the address of a Dask scheduler, got {address!r}: {error}") from None
    with client:
        executor = client.get_executor(pure=False, retries=_LOST_WORKERS)  # type: ignore[no-untyped-call]
        yield cast("Executor", executor)
