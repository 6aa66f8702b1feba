"""The works, and how each of us does them: what is run, which seconds count, which numbers must agree."""

import csv
import dataclasses
import json
import os
import pathlib
import re
import shutil
import statistics
import tempfile

from . import setup
from .common import BENCH, WORK, Refused, Watch, fastest, run, run_json, run_measured, say, wait_for_quiet

QUICK = 5.0
"""A peer that takes fewer seconds than this is run as often as we are."""

GPT2_SMALL = ["768x2304", "768x768", "768x3072", "3072x768"]
SMOLLM2 = ["576x576", "576x192", "576x192", "576x576", "576x1536", "576x1536", "1536x576"]
GEMM_ROWS = 512


@dataclasses.dataclass(frozen=True)
class Peer:
    """A peer's script: where it runs, and the line it prints, with groups `seconds`, `cells` and one for each checksum."""

    name: str
    environment: str
    script: str
    arguments: tuple
    line: str


@dataclasses.dataclass(frozen=True)
class Work:
    """The same work, for us an experiment file and for the peers a script."""

    name: str
    title: str
    cells: int
    shapes: list
    model: str  # None: the random GPT-2
    checks: dict  # how a checksum is found in our table, by its name: columns and their values; {} sums all rows
    digits: str  # how checksums are printed
    peers: list

    @property
    def file(self):
        """The experiment file."""
        return BENCH / "experiments" / f"{self.name}.toml"


@dataclasses.dataclass
class Measured:
    """One row of the table."""

    work: str
    who: str
    seconds: list = dataclasses.field(default_factory=list)
    checksums: dict = dataclasses.field(default_factory=dict)
    others: float = None  # the share of the machine that others took meanwhile
    problem: str = None

    @property
    def median(self):
        """The seconds that count."""
        return statistics.median(self.seconds)


@dataclasses.dataclass
class Ours:
    """What is known of our own runs of a work besides its row."""

    cells: int
    load: float
    memory: int
    weights: int
    gemm: dict
    explained: dict

    @property
    def memory_limit(self):
        """1.25 times the weights in f32, and 400 MB."""
        return 1.25 * self.weights + 400e6


PATCH_LINE = r"^\w+: (?P<seconds>\S+) s for (?P<cells>\d+) cells, sum=(?P<sum>\S+), \[0,3\]=(?P<c0_3>\S+) \[5,9\]=(?P<c5_9>\S+)$"
SEED_LINE = (
    r"^pyvene seed sweep: (?P<seconds>\S+) s total .*, (?P<cells>\d+) cells, sum=(?P<sum>\S+), "
    r"first=\('mlp_output', 0, 0, 14708, (?P<first>\S+)\), last=\('attention_output', 11, 4, 10598, (?P<last>\S+)\)$")


def patch(name, environment):
    """A peer of the swap."""
    return Peer(name, environment, "act_patch_peers.py", (name,), PATCH_LINE)


WORKS = [
    Work(
        "tutorial", "the tutorial's cumulative addition, GPT-2 small's shape", 120, GPT2_SMALL, None,
        {
            "sum": {},
            "first": {"site": "mlp_output", "layer": "0", "position": "0", "token": "14708"},
            "last": {"site": "attention_output", "layer": "11", "position": "4", "token": "10598"},
        },
        ".6e",
        [Peer("pyvene", "peers", "seed_sweep_pyvene.py", (), SEED_LINE)],
    ),
    Work(
        "swap", "layer × position swap of the residual stream, GPT-2 small's shape", 180, GPT2_SMALL, None,
        {"sum": {}, "c0_3": {"layer": "0", "position": "3"}, "c5_9": {"layer": "5", "position": "9"}},
        ".6f",
        [
            Peer("cone", "peers", "cone_prototype.py", (), PATCH_LINE),
            patch("batched", "peers"),
            patch("hooks", "peers"),
            patch("nnsight", "peers2"),
            patch("tl", "peers2"),
            patch("pyvene", "peers"),
        ],
    ),
    Work(
        "big", "three sites × 30 layers × 100 positions of SmolLM2, swapped", 9000, SMOLLM2, "smollm2",
        {"sum": {}, "first": {"site": "block_input", "layer": "0", "position": "12"}, "last": {"site": "block_input", "layer": "29", "position": "99"}},
        ".6f",
        [],
    ),
]


def turns_of(row, repeat, repeat_slow):
    """How often to run what has run once."""
    return repeat if row.median < QUICK else repeat_slow


def measure_ours(work, model, causalcone, timer, repeat, repeat_slow, wait):
    """Runs our sweep; loading the model is not counted, as in the peers' scripts."""
    model = str(work.model or model)
    row = Measured(work.name, "causalcone")
    # Also hashes the model, which the command remembers.
    info = run_json([causalcone, "models", "info", model, "--json"], "causalcone models info")
    explained = run_json([causalcone, "explain", work.file, "-m", model, "--json"], "causalcone explain")
    wait_for_quiet(wait)
    watch = Watch()
    gemms = [gemm_rate(timer, work)]
    out = WORK / "out" / work.name
    loads, memory = [], 0
    turn, turns = 0, 1
    while turn < turns:
        # Ours alone, not a folder of somebody else: nothing of a former run may help or hinder.
        shutil.rmtree(out, ignore_errors=True)
        out.parent.mkdir(parents=True, exist_ok=True)
        printed, peak = run_measured([causalcone, "sweep", work.file, "-m", model, "--out", out, "--json"], "causalcone sweep")
        summary = json.loads(printed)
        if summary["cells"] != work.cells:
            raise Refused(f"{work.file.name} has {summary['cells']} cells instead of {work.cells}")
        row.seconds.append(summary["seconds"]["sweep"])
        loads.append(summary["seconds"]["load"])
        memory = max(memory, peak)
        turns = turns_of(row, repeat, repeat_slow)
        turn += 1
        say(f"{work.name}: causalcone {turn}/{turns}: {row.seconds[-1]:.3f} s")
    gemms.append(gemm_rate(timer, work))
    row.others = watch.others()
    gemm = max(gemms, key=fastest)
    row.checksums = checksums(work, out / "cells.csv")
    return row, Ours(work.cells, statistics.median(loads), memory, info["parameters"] * 4, gemm, explained)


def gemm_rate(timer, work):
    """The machine's own GEMM rates, candle's and ours, over the weights of one block, by shape and weighted by FLOPs."""
    return run_json([timer, GEMM_ROWS, *work.shapes], "the GEMM timer")



def checksums(work, table):
    """The numbers of our table that the peers print too."""
    with open(table, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    found = {}
    for name, wanted in work.checks.items():
        values = [float(row["value"]) for row in rows if all(row[key] == value for key, value in wanted.items())]
        if not values or (wanted and len(values) > 1):
            raise Refused(f"{table.name} of {work.name} has {len(values)} rows where {wanted} should be one")
        found[name] = sum(values)
    return found


def measure_peer(work, peer, peers_dir, repeat, repeat_slow, wait):
    """Runs a peer's script; whatever goes wrong is told in its row and stops nobody else."""
    row = Measured(work.name, peer.name)
    try:
        setup.prepare_environment(peer.environment, peers_dir)
        turn, turns = 0, 1
        wait_for_quiet(wait)
        watch = Watch()
        while turn < turns:
            for line in run_peer(peer, peers_dir):
                if int(line["cells"]) != work.cells:
                    raise Refused(f"it printed {line['cells']} cells instead of {work.cells}")
                row.seconds.append(float(line["seconds"]))
                row.checksums = {name: float(line[name]) for name in work.checks}
                say(f"{work.name}: {peer.name} {turn + 1}/{turns}: {row.seconds[-1]:.3f} s")
            turns = turns_of(row, repeat, repeat_slow)
            turn += 1
        row.others = watch.others()
    except Refused as problem:
        row.problem = str(problem)
        say(f"{work.name}: {peer.name}: {problem}")
    return row


def run_peer(peer, peers_dir):
    """The lines with seconds and checksums that a peer's script prints; more than one if it measures itself again."""
    command = [setup.python_of(peer.environment, peers_dir), BENCH / "peers" / peer.script, *peer.arguments]
    WORK.mkdir(parents=True, exist_ok=True)
    # Some write a model of 500 MB to the folder of temporary files and leave it; nobody needs a hub.
    with tempfile.TemporaryDirectory(dir=WORK, prefix="peer-") as scratch:
        env = {**os.environ, "TMPDIR": scratch, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        printed = run(command, f"{peer.script} {' '.join(peer.arguments)}".strip(), env)
    lines = list(re.finditer(peer.line, printed, re.MULTILINE))
    if not lines:
        raise Refused(f"{pathlib.Path(peer.script).name} printed no line of the form it should:\n{printed[-500:]}")
    return [line.groupdict() for line in lines]
