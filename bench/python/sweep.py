"""A sweep of an experiment file by the package: seconds from the experiment to the written table.

    sweep.py FILE MODEL TIMES       prints JSON
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import causalcone as cc

file, name, times = sys.argv[1], sys.argv[2], int(sys.argv[3])
model = cc.Model(name)
seconds, sums = [], []
for _ in range(times):
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        sweep = cc.Experiment.from_file(file, model).sweep()
        sweep.table.write(Path(folder) / "cells.csv")
        seconds.append(time.perf_counter() - start)
    sums.append(sum(value for value in sweep.table["value"] if value is not None))
print(json.dumps({"seconds": seconds, "sum": sums}))
