"""The texts of strengths.toml by llama.cpp: the same model, the same vector, the same strengths, beside causalcone's.

    pip install llama-cpp-python gguf
    causalcone generate examples/strengths.toml --out strengths
    causalcone save examples/strengths.toml --out happy.gguf
    python examples/strengths_llamacpp.py MODEL.gguf happy.gguf strengths/texts.jsonl

MODEL.gguf is the file that `causalcone models info smollm2` names. llama.cpp rounds activations to eight bits before it
multiplies them with weights of four, causalcone does not: where two tokens are about equally likely the texts part. Ends
with 1 if a text parts at a token that was not so.
"""

import argparse
import ctypes
import json

import gguf
import llama_cpp
import numpy as np

CLOSE = 0.25
"""Texts may part where llama.cpp's own logits of the two tokens are this close: what its rounding moves them by."""


def directions(path, width, layers):
    """The vectors of a control vector, layers × width, from layer 1 on; and the layers that have one."""
    rows = np.zeros((layers - 1, width), dtype=np.float32)
    found = []
    for tensor in gguf.GGUFReader(path).tensors:
        layer = int(tensor.name.removeprefix("direction."))
        rows[layer - 1] = tensor.data
        found.append(layer)
    return rows, found


class Writer:
    """llama.cpp with a control vector."""

    def __init__(self, model, vector):
        self.llama = llama_cpp.Llama(model, n_ctx=512, verbose=False, logits_all=True)
        handle = self.llama.model
        self.width, layers = llama_cpp.llama_model_n_embd(handle), llama_cpp.llama_model_n_layer(handle)
        self.rows, self.layers = directions(vector, self.width, layers)

    def write(self, prompt, tokens, scale):
        """Ids and the logits each was chosen from, greedily."""
        rows = np.ascontiguousarray(self.rows * np.float32(scale))
        data = rows.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        failed = llama_cpp.llama_set_adapter_cvec(
            self.llama.ctx, data, rows.size, self.width, min(self.layers), max(self.layers))
        if failed:
            raise SystemExit("llama.cpp does not take the vector")
        self.llama.reset()
        ids, chosen = self.llama.tokenize(prompt.encode(), add_bos=False), []
        new = []
        for _ in range(tokens):
            self.llama.eval(ids)
            logits = np.array(self.llama.scores[self.llama.n_tokens - 1])
            ids = [int(logits.argmax())]
            new += ids
            chosen.append(logits)
            if ids[0] == self.llama.token_eos():
                break
        return new, chosen


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="the GGUF file of the model")
    parser.add_argument("vector", help="the control vector, as `causalcone save` wrote it")
    parser.add_argument("texts", help="texts.jsonl, as `causalcone generate --out` wrote it")
    parser.add_argument("--prompt", default="I think that the film was", help="the prompt of the texts")
    arguments = parser.parse_args()
    writer, parted = Writer(arguments.model, arguments.vector), 0
    with open(arguments.texts, encoding="utf-8") as lines:
        texts = [json.loads(line) for line in lines]
    for text in texts:
        ours = text["counterfactual"]["ids"]
        theirs, logits = writer.write(arguments.prompt, len(ours), text["scale"])
        same = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b), min(len(ours), len(theirs)))
        print(f"scale {text['scale']}: {same} of {len(ours)} tokens equal", end="")
        if same < min(len(ours), len(theirs)):
            gap = float(logits[same][theirs[same]] - logits[same][ours[same]])
            parted += gap > CLOSE
            print(f"; then two whose logits are {gap:.3f} apart" + (": TOO FAR" if gap > CLOSE else ""), end="")
        print(f"\n  causalcone {text['counterfactual']['text']!r}")
        print(f"  llama.cpp  {writer.llama.detokenize(theirs).decode(errors='replace')!r}")
    raise SystemExit(1 if parted else 0)


if __name__ == "__main__":
    main()
