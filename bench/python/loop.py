"""The work of peers/seed_sweep_pyvene.py by causalcone.pyvene: the same loop, on the same weights.

    loop.py MODEL TIMES [KEEP]      prints JSON: seconds and the checksum of each time; KEEP bytes of rows are kept
"""

import json
import sys
import time

import numpy as np

import causalcone.pyvene as pv

name, times = sys.argv[1], int(sys.argv[2])
_, _, gpt = pv.create_gpt2_lm(name)
if len(sys.argv) > 3:
    gpt.core.keep = int(sys.argv[3])
ids = np.array([[464, 3139, 286, 8602, 318]])
base = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
embedding = gpt.wte(np.array(10598)).clone().unsqueeze(0).unsqueeze(0)
tokens = [14708, 10598]


def config(component, layers):
    places = [pv.RepresentationConfig(layer, component, "pos", 1) for layer in range(layers)]
    return pv.IntervenableConfig(
        model_type=type(gpt), representations=places, intervention_types=pv.AdditionIntervention
    )


seconds, sums = [], []
for _ in range(times):
    gpt.core.keep = gpt.core.keep  # forgets what the last time has left
    start = time.perf_counter()
    total = 0.0
    for layer in range(gpt.config.n_layer):
        for component in ("mlp_output", "attention_output"):
            model = pv.IntervenableModel(config(component, layer + 1), gpt)
            for position in range(5):
                _, edited = model(
                    base, unit_locations={"sources->base": position}, source_representations=embedding
                )
                logits = edited.logits[0, -1].astype(np.float64)
                chances = np.exp(logits - logits.max())
                total += float((chances / chances.sum())[tokens].sum())
    seconds.append(time.perf_counter() - start)
    sums.append(total)
print(json.dumps({"seconds": seconds, "sum": sums, "kept": gpt.core.kept}))
