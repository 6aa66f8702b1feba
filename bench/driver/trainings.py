"""Training steps: what one takes us and the peers, in steady state, and the losses that must agree."""

import csv
import dataclasses
import json
import re
import shutil
import statistics
import tempfile

from . import setup
from .common import BENCH, WORK, Refused, Watch, run, say, wait_for_quiet
from .report import aligned, hindered, ratio, share
from .works import Peer, run_peer

SHORT, LONG = 20, 60
"""Updates of a short and a long training: the difference of their times is that of steps in steady state."""

TOLERANCE = 1e-3
"""How far losses may be from pyvene's."""

LINE = r"^.*: median step (?P<seconds>\S+) s, losses (?P<first>\S+) -> (?P<last>\S+)$"


@dataclasses.dataclass(frozen=True)
class Training:
    """The same steps, for us an experiment file and for the peers a script."""

    name: str
    title: str
    kind: str  # of das_train_pyvene.py and das_data.py
    follows: bool  # whether the parametrisation is pyvene's, so that the last loss is too; else it must be no higher
    peers: list

    @property
    def file(self):
        """The experiment file."""
        return BENCH / "experiments" / f"{self.name}.toml"


@dataclasses.dataclass
class Row:
    """One row of the table."""

    training: str
    who: str
    seconds: float = None
    first: float = None
    last: float = None
    steps: str = ""
    others: float = None
    problem: str = None


TRAININGS = [
    Training(
        "das", "a step of a low-rank rotated swap (16 of 768 directions), GPT-2 small's shape, by pyvene's parametrisation", "lowrank", True,
        [
            Peer("cone", "peers", "das_cone_prototype.py", (), LINE),
            Peer("pyvene", "peers", "das_train_pyvene.py", ("lowrank", str(SHORT)), LINE),
        ],
    ),
    Training(
        "das-full", "a step of a full rotation (768 × 768, half of its coordinates swapped), by our own parametrisation", "rotated", False,
        [Peer("pyvene", "peers", "das_train_pyvene.py", ("rotated", str(SHORT)), LINE)],
    ),
]


def prepare(training, peers_dir):
    """The examples and pyvene's first rotation, written once."""
    folder = WORK / "das"
    if not (folder / f"{training.kind}.json").exists():
        setup.prepare_environment("peers", peers_dir)
        say(f"{training.name}: pyvene's data and losses (once)")
        run([setup.python_of("peers", peers_dir), BENCH / "peers" / "das_data.py", training.kind, str(SHORT), folder], "das_data.py")


def measure_ours(training, model, causalcone, repeat, wait):
    """Our steps in steady state, and our losses."""
    wait_for_quiet(wait)
    watch = Watch()
    seconds = {SHORT: [], LONG: []}
    row = Row(training.name, "causalcone", steps=f"{SHORT}–{LONG}")
    text = training.file.read_text(encoding="utf-8")
    for turn in range(repeat):
        for steps in (SHORT, LONG):
            # Beside the data, where the file's own paths lead to it as well.
            with tempfile.NamedTemporaryFile("w", dir=WORK, prefix="train-", suffix=".toml", encoding="utf-8") as file:
                file.write(re.sub(r"(?m)^(steps|evaluate) = \d+$", rf"\1 = {steps}", text))
                file.flush()
                out = WORK / "out" / training.name
                shutil.rmtree(out, ignore_errors=True)
                out.parent.mkdir(parents=True, exist_ok=True)
                command = [causalcone, "train", file.name, "-m", model, "--out", out, "--json"]
                seconds[steps].append(json.loads(run(command, "causalcone train"))["seconds"]["train"])
            if steps == SHORT:
                with open(out / "log.csv", encoding="utf-8", newline="") as log:
                    losses = {int(line["step"]): float(line["loss"]) for line in csv.DictReader(log)}
                row.first, row.last = losses[1], losses[SHORT]
        say(f"{training.name}: causalcone {turn + 1}/{repeat}: {seconds[SHORT][-1]:.3f} s for {SHORT} steps, {seconds[LONG][-1]:.3f} s for {LONG}")
    row.seconds = (statistics.median(seconds[LONG]) - statistics.median(seconds[SHORT])) / (LONG - SHORT)
    row.others = watch.others()
    return row


def measure_peer(training, peer, peers_dir, wait):
    """The median of a peer's steps; whatever goes wrong is told in its row and stops nobody else."""
    row = Row(training.name, peer.name, steps=str(SHORT))
    try:
        setup.prepare_environment(peer.environment, peers_dir)
        wait_for_quiet(wait)
        watch = Watch()
        line = run_peer(peer, peers_dir)[-1]
        row.seconds, row.first, row.last = (float(line[name]) for name in ("seconds", "first", "last"))
        row.others = watch.others()
        say(f"{training.name}: {peer.name}: {row.seconds:.3f} s a step")
    except Refused as problem:
        row.problem = str(problem)
        say(f"{training.name}: {peer.name}: {problem}")
    return row


def complaints(trainings, rows):
    """Everything that is wrong with the results, one sentence each."""
    for training in trainings:
        own = next(row for row in rows if (row.training, row.who) == (training.name, "causalcone"))
        for row in (row for row in rows if row.training == training.name):
            yield from hindered(row.training, row)
            if row.who != "pyvene" or row.seconds is None:
                continue
            apart = own.last - row.last
            if abs(own.first - row.first) > TOLERANCE or apart > TOLERANCE or training.follows and apart < -TOLERANCE:
                yield (
                    f"{row.training}: LOSSES DIFFER: {own.first:.5f} -> {own.last:.5f} for causalcone and "
                    f"{row.first:.5f} -> {row.last:.5f} for pyvene: one of the two is wrong, and its seconds mean nothing")


def results(trainings, rows):
    """The table."""
    table = [("training", "who", "seconds a step", "steps", "ratio", "others", "losses")]
    for row in rows:
        own = next(mine for mine in rows if (mine.training, mine.who) == (row.training, "causalcone"))
        if row.seconds is None:
            table.append((row.training, row.who, "–", "–", "–", "–", "could not be measured"))
            continue
        # The prototype prints its eighth loss last, from a rotation of its own.
        last = "" if row.who == "cone" else f" → {row.last:.5f}"
        table.append((
            row.training, row.who, f"{row.seconds:.3f}", row.steps, ratio(row.seconds, own.seconds),
            share(row.others), f"{row.first:.5f}{last}"))
    return [*aligned(table), "", *(f"- {training.name}: {training.title}." for training in trainings)]
