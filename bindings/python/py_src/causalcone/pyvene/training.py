"""pyvene's training loop, by torch. `causalcone.Experiment.train` fits parameters without torch, and faster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._arrays import imported_torch
from .._progress import Progress

if TYPE_CHECKING:
    from .intervenable import IntervenableModel


def _torch() -> Any:
    torch = imported_torch()
    if torch is None:
        raise NotImplementedError(
            "train_alignment fits by torch, which is not imported: use causalcone.Experiment.train"
        )
    return torch


def locations_of(model: IntervenableModel, inputs: dict[str, Any]) -> dict[str, Any]:
    """The unit locations that a batch has under "source_0->base.0.pos", "source_0->base.1.pos" …: 0 is the source's
    side, 1 the base's; one pair for each intervention in parallel mode, a chain in serial mode."""
    last = len(model.representations) - 1
    made: dict[str, Any] = {}
    both: tuple[list[Any], list[Any]] = ([], [])
    for number, one in enumerate(model.representations.values()):
        end = "base" if model.mode == "parallel" or number == last else f"source_{number + 1}"
        prefix = f"source_{number}->{end}"
        units = one.unit.split(".")
        sides = [[inputs[f"{prefix}.{side}.{unit}"] for unit in units] for side in (0, 1)]
        own = [side[0] if len(units) == 1 else side for side in sides]
        for all_of_side, side in zip(both, own):
            all_of_side.append(side)
        made[prefix] = ([own[0]], [own[1]])
    return {"sources->base": both} if model.mode == "parallel" else made


def _run(model: IntervenableModel, inputs: dict[str, Any]) -> Any:
    _, edited = model(
        {"input_ids": inputs["input_ids"]},
        [{"input_ids": inputs["source_input_ids"]}],
        locations_of(model, inputs),
        subspaces=inputs.get("subspaces"),
    )
    return edited


def train_alignment(
    model: IntervenableModel,
    batches: Any,
    compute_loss: Any,
    compute_metrics: Any,
    collator: Any = None,
    lr: float = 1e-3,
    epochs: int = 10,
    gradient_accumulation_steps: int = 1,
    optimizer: Any = None,
    scheduler: Any = None,
    progress: bool | None = None,
    **_: Any,
) -> None:
    """Fits the trainable interventions: Adam, the learning rate rising over a tenth of all updates and falling to 0,
    temperatures from 50 to 0.1."""
    torch = _torch()
    total = len(batches) * int(epochs)
    warmup = 0.1 * total
    if optimizer is None:
        optimizer = torch.optim.Adam(model.get_trainable_parameters(), lr=lr)
    if scheduler is None:

        def factor(step: int) -> float:
            return step / max(1.0, warmup) if step < warmup else max(0.0, (total - step) / max(1.0, total - warmup))

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    temperatures = torch.linspace(50.0, 0.1, total)
    step = 0
    with Progress(progress) as bar:
        for _epoch in range(int(epochs)):
            for inputs in batches:
                inputs = inputs if collator is None else collator(inputs)
                logits = _run(model, inputs).logits
                compute_metrics([logits], [inputs["labels"]])
                loss = compute_loss(logits, inputs["labels"]) / gradient_accumulation_steps
                loss.backward()
                if (step + 1) % gradient_accumulation_steps == 0:
                    optimizer.step()
                    scheduler.step()
                    model.set_zero_grad()
                    model.set_temperature(temperatures[step])
                step += 1
                if bar.listener:
                    bar("training", step, total, "steps")


def eval_alignment(model: IntervenableModel, batches: Any, compute_metrics: Any, collator: Any = None) -> float:
    """The mean of a metric over batches, weighted by their sizes."""
    torch = _torch()
    total, count = 0.0, 0
    with torch.no_grad():
        for inputs in batches:
            inputs = inputs if collator is None else collator(inputs)
            size = len(inputs["input_ids"])
            total += size * float(compute_metrics([_run(model, inputs).logits], [inputs["labels"]]))
            count += size
    return total / count
