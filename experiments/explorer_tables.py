"""Write the tables that the explorer's page comes with: ``python experiments/explorer_tables.py``.

About 1,250 curves of ``ps.predict``, half a second of one core apiece, in as many processes as there are processors.
They are computed anew whatever is packaged or kept.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from partialsum.experiments.executors import local_pool
from partialsum.report.explorer.grid import Grid
from partialsum.report.explorer.tables import tabulate, write_tables

PLACE = Path(__file__).parents[1] / "src" / "partialsum" / "report" / "explorer" / "tables.npz"


def told(done: int, total: int) -> None:
    """Print a line now and then."""
    if done % 100 < 10 or done == total:
        print(f"{done} of {total} tables", file=sys.stderr, flush=True)


if __name__ == "__main__":
    with local_pool(os.cpu_count() or 1, 1) as pool:
        write_tables(
            sys.argv[1] if len(sys.argv) > 1 else PLACE, tabulate(Grid(), executor=pool, told=told, keep=False)
        )
