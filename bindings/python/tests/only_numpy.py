"""The package where there is nothing but NumPy: pyvene's cases, and a table, without pytest, pandas or torch.

python bindings/python/tests/only_numpy.py
"""

import importlib.util
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
import causalcone as cc
from cases import CASES
from common import FIXTURES, Lib, numbers, tensors

others = [name for name in ("torch", "pandas", "tqdm", "pytest") if importlib.util.find_spec(name)]
if others:
    sys.exit(f"this is to be run where there is only NumPy, and here is {', '.join(others)}")

expected = tensors(FIXTURES / "python.safetensors")
for name, case in CASES.items():
    for key, ours in case(Lib()).items():
        theirs = expected[f"{name}/{key}"]
        np.testing.assert_allclose(numbers(ours), theirs, atol=1e-4, rtol=0, err_msg=f"{name}/{key}")

exp = cc.Experiment(cc.Model(str(FIXTURES / "tiny-llama-tied")))
exp.run("The capital of Spain is")
exp.edit(site="mlp_output", layers="all", op="zero")
exp.read(tokens=["T"])
sweep = exp.sweep(layers="each", positions="each")
assert len(sweep.table["value"]) == len(sweep) and sweep.to_svg()
try:
    sweep.to_pandas()
except ImportError as error:
    assert "pip install pandas" in str(error)
else:
    sys.exit("there is a pandas after all")
print(f"{len(CASES)} cases and a sweep with NumPy {np.__version__} alone")
