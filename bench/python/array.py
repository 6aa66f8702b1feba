"""How much memory it takes to return a large array, in bytes: the array, and all that was held beside it.

    array.py MODEL                  prints JSON
"""

import json
import resource
import sys

import numpy as np

import causalcone as cc


def most():
    """The most bytes this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


model = cc.Model(sys.argv[1])
rows = np.zeros((500_000_000 // (4 * model.vocab), model.width), dtype=np.float32)
model.unembed(rows[:1])
before = most()
array = model.unembed(rows)
print(json.dumps({"array": array.nbytes, "rise": most() - before}))
