"""What trains, and how, for pyvene and for causalcone.pyvene alike; both need torch. `lib` is that of cases.py.

Each case gives the losses of ten updates by Adam, and what `trained` has to say of the parameters.
"""

import torch
from cases import BASE, JUMPING, OTHER, SMALL, SOURCE, D, N, at, ramp, rotation, set_parameters

STEPS, RATE = 10, 0.05
LABELS = [3, 8]
IN_A_MODEL = {
    "rotated": ("RotatedSpaceIntervention", {}, {"rotation": rotation(D, D), "latents": 5}),
    "low_rank": ("LowRankRotatedSpaceIntervention", {"low_rank_dimension": 3}, {"rotation": rotation(D, 3)}),
    "boundless": ("BoundlessRotatedSpaceIntervention", {}, {"rotation": rotation(D, D), "temperature": 2.0}),
    "rotated_mask": (
        "SigmoidMaskRotatedSpaceIntervention", {}, {"rotation": rotation(D, D), "masks": ramp(D), "temperature": 0.5},
    ),
    "mask": ("SigmoidMaskIntervention", {}, {"mask": ramp(D), "temperature": 0.5}),
    "jumprelu": ("JumpReLUAutoencoderIntervention", {"low_rank_dimension": N}, {**JUMPING, "latents": 20}),
}  # fmt: skip
# pyvene exchanges an autoencoder's latents in place, which its own backward refuses.
BY_ITSELF = [name for name in SMALL if name != "autoencoder"]


def in_a_model(lib, which):
    """An interchange at the last position, towards labels."""
    kind, settings, parameters = IN_A_MODEL[which]
    part = at("block_output", intervention_type=getattr(lib.pv, kind), **settings)
    model = lib.pv.IntervenableModel(lib.pv.IntervenableConfig(part), model=lib.gpt2_lm())
    model.disable_model_gradients()
    (intervention,) = model.interventions.values()
    _set(lib, intervention, parameters)
    base, source = lib.batch([BASE, OTHER]), lib.batch([SOURCE, BASE])

    def loss():
        logits = model(base, [source], {"sources->base": 4})[1].logits[:, -1]
        return torch.nn.functional.cross_entropy(logits, torch.tensor(LABELS))

    losses = _fit(model.get_trainable_parameters(), loss)
    return {"losses": losses, "count": model.count_parameters(), **_trained(intervention)}


def by_itself(lib, which):
    """An intervention that is called with a base and a source, towards a third array."""
    kind, settings, parameters = SMALL[which]
    intervention = getattr(lib.pv, kind)(embed_dim=6, **settings)
    _set(lib, intervention, parameters)
    if which in ("rotated", "jumprelu"):
        # An exchange of all dimensions is the same in every basis; pyvene has no name for all latents.
        intervention.set_interchange_dim(2)
    base, source, goal = (lib.array([ramp(6, seed), ramp(6, seed + 7)]) for seed in (1, 2, 3))

    def loss():
        return torch.nn.functional.mse_loss(intervention(base.clone(), source), goal)

    return {"losses": _fit(intervention.parameters(), loss), **_trained(intervention)}


CASES = {f"in_a_model.{name}": (in_a_model, name) for name in IN_A_MODEL}
CASES |= {f"by_itself.{name}": (by_itself, name) for name in BY_ITSELF}


def _set(lib, intervention, parameters):
    """Sets parameters, and the square matrix that a rotation turns from: torch draws its other columns."""
    set_parameters(lib, intervention, parameters)
    if "rotation" in parameters:
        width = len(parameters["rotation"])
        with torch.no_grad():
            intervention.rotate_layer.parametrizations.weight[0].base.copy_(lib.array(rotation(width, width)))


def _fit(parameters, loss):
    # With this eps, a gradient that is nothing but rounding moves nothing.
    optimizer, losses = torch.optim.Adam(parameters, lr=RATE, eps=1e-3), []
    for _ in range(STEPS):
        optimizer.zero_grad()
        found = loss()
        found.backward()
        optimizer.step()
        losses.append(found.item())
    return losses


def _trained(intervention):
    """The parameters with their shapes, those that no gradient reaches, and the temperature after training."""
    named = dict(intervention.named_parameters())
    found = {
        "shapes": {name: list(one.shape) for name, one in sorted(named.items())},
        "still": sorted(name for name, one in named.items() if one.grad is None),
    }
    if hasattr(intervention, "temperature"):
        found["temperature"] = intervention.temperature.item()
    return found
