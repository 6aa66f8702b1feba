"""SmolLM2 loaded from its GGUF file by transformers, and asked once; importing the libraries is not counted.

usage: load_smollm2.py GGUF ID...
"""

import pathlib
import sys
import time

import torch
from transformers import AutoModelForCausalLM

file, ids = pathlib.Path(sys.argv[1]), [int(id) for id in sys.argv[2:]]
for _ in range(3):
    start = time.perf_counter()
    model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, torch_dtype=torch.float32).eval()
    loaded = time.perf_counter()
    # transformers 4.46 leaves the tied matrix of the head as it was made at random.
    model.lm_head.weight = model.model.embed_tokens.weight
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0, -1]
    answered = time.perf_counter()
    prob, top = torch.softmax(logits, -1).max(-1)
    print(f"transformers: loaded in {loaded - start:.4f} s, answered after {answered - start:.4f} s, id={top} prob={prob:.6f}", flush=True)
