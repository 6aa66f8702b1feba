"""Writes what das_train_pyvene.py trains on and from where, for us to train the same: its examples, pyvene's first
rotation with the square matrix it turns from, and pyvene's losses.
usage: das_data.py lowrank|rotated STEPS FOLDER"""
import json, pathlib, sys, torch, pyvene as pv
from safetensors.torch import save_file
from transformers import GPT2Config, GPT2LMHeadModel
kind, steps, folder = sys.argv[1], int(sys.argv[2]), pathlib.Path(sys.argv[3])
torch.manual_seed(0)
m = GPT2LMHeadModel(GPT2Config()).eval()
cls = pv.LowRankRotatedSpaceIntervention if kind == "lowrank" else pv.RotatedSpaceIntervention
cfg = pv.IntervenableConfig(model_type=type(m), representations=[pv.RepresentationConfig(6, "block_output", "pos", 1, low_rank_dimension=16)], intervention_types=cls)
iv = pv.IntervenableModel(cfg, m); iv.set_device("cpu"); iv.disable_model_gradients()
(it,) = iv.interventions.values()
if kind != "lowrank": it.set_interchange_dim(384)
first = it.rotate_layer.weight.detach().clone().contiguous(); base = it.rotate_layer.parametrizations.weight[0].base.detach().clone().contiguous()
opt = torch.optim.Adam(iv.get_trainable_parameters(), lr=1e-3)
g = torch.Generator().manual_seed(1); B, T = 16, 15
ids = torch.randint(0, 50257, (2, B, T), generator=g); lab = torch.randint(0, 50257, (B,), generator=g)
mk = lambda x: {"input_ids": x, "attention_mask": torch.ones_like(x)}
losses = []
for s in range(steps):
    opt.zero_grad()
    _, cf = iv(mk(ids[0]), [mk(ids[1])], {"sources->base": T - 1})
    loss = torch.nn.functional.cross_entropy(cf.logits[:, -1], lab); loss.backward(); opt.step(); losses.append(loss.item())
folder.mkdir(parents=True, exist_ok=True)
save_file({"rotation": first, "base": base}, str(folder / f"{kind}.safetensors"))
(folder / f"{kind}.json").write_text(json.dumps(losses))
lines = [json.dumps({"base": b, "source": s, "label": l}) for b, s, l in zip(ids[0].tolist(), ids[1].tolist(), lab.tolist())]
(folder / "das.jsonl").write_text("\n".join(lines) + "\n")
