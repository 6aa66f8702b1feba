"""Alignment on SmolLM2 by pyvene: a low-rank rotated swap of block_output at one layer and position, trained on the
data sets of examples/das.toml, or on others, and its accuracy on the pairs held out, by seed.
usage: das_smollm2_pyvene.py GGUF LAYER POSITION [SEEDS [TRAIN.jsonl TEST.jsonl [RANK STEPS BATCH RATE]]]"""
import json, pathlib, shutil, sys, tempfile, torch, pyvene as pv
from transformers import AutoModelForCausalLM, AutoTokenizer
gguf, layer, position = pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
seeds = int(sys.argv[4]) if len(sys.argv) > 4 else 3
examples = pathlib.Path(__file__).resolve().parents[2] / "examples"
files = sys.argv[5:7] if len(sys.argv) > 6 else [examples / "interchange-train.jsonl", examples / "interchange-test.jsonl"]
RANK, STEPS, BATCH = map(int, sys.argv[7:10]) if len(sys.argv) > 10 else (16, 60, 32)
RATE = float(sys.argv[10]) if len(sys.argv) > 10 else 1e-2
with tempfile.TemporaryDirectory() as folder:
    name = "model.gguf"  # transformers wants it to end so
    shutil.copy(gguf, pathlib.Path(folder) / name)
    tok = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    m = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, torch_dtype=torch.float32).eval()
m.lm_head.weight = m.model.embed_tokens.weight
read = lambda file: [json.loads(line) for line in open(file, encoding="utf-8")]
train, test = map(read, files)

def batch(lines):
    """Padded at the end, where nothing sees it: ids, the places swapped, the last places, labels."""
    sides = []
    for key in ("base", "source"):
        ids = [tok(line[key], add_special_tokens=False).input_ids for line in lines]
        width = max(map(len, ids))
        mask = torch.tensor([[1] * len(i) + [0] * (width - len(i)) for i in ids])
        sides.append(({"input_ids": torch.tensor([i + [0] * (width - len(i)) for i in ids]), "attention_mask": mask},
                      [[len(i) + position] for i in ids], torch.tensor([len(i) - 1 for i in ids])))
    labels = torch.tensor([tok(line["label"], add_special_tokens=False).input_ids for line in lines])
    assert labels.shape[1] == 1
    return sides, labels[:, 0]

def logits(iv, lines):
    (base, source), labels = batch(lines)
    _, out = iv(base[0], [source[0]], {"sources->base": ([source[1]], [base[1]])})
    return out.logits[torch.arange(len(lines)), base[2]], labels

found = []
for seed in range(seeds):
    torch.manual_seed(seed)
    cfg = pv.IntervenableConfig(model_type=type(m), representations=[pv.RepresentationConfig(layer, "block_output", "pos", 1, low_rank_dimension=RANK)], intervention_types=pv.LowRankRotatedSpaceIntervention)
    iv = pv.IntervenableModel(cfg, m); iv.set_device("cpu"); iv.disable_model_gradients()
    opt = torch.optim.Adam(iv.get_trainable_parameters(), lr=RATE)
    order = []
    for step in range(STEPS):
        if len(order) < BATCH: order = torch.randperm(len(train)).tolist()
        picked, order = [train[i] for i in order[:BATCH]], order[BATCH:]
        opt.zero_grad(); out, labels = logits(iv, picked)
        loss = torch.nn.functional.cross_entropy(out, labels); loss.backward(); opt.step()
    with torch.no_grad():
        right = sum(int((out.argmax(-1) == labels).sum()) for out, labels in (logits(iv, test[i:i + 50]) for i in range(0, len(test), 50)))
    found.append(right / len(test)); print(f"seed {seed}: last loss {loss.item():.4f}, accuracy on pairs held out {found[-1]:.3f}", flush=True)
print(f"pyvene, layer {layer}, position {position}: mean accuracy {sum(found) / len(found):.4f} of {seeds} seeds")
