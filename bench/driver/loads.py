"""Loading a model: what it takes us and the peers until the weights are there, and until the first answer."""

import dataclasses
import json
import shutil
import statistics
import time

from . import setup
from .common import WORK, Refused, Watch, run, run_json, say, wait_for_quiet
from .report import aligned, hindered, ratio, share, spread
from .works import Peer, run_peer

TOLERANCE = 1e-3
"""How far the probability of the first answer may be from the peer's."""

PROMPT = "The capital of Spain is"

LINE = (
    r"^\w+: loaded in (?P<seconds>\S+) s, answered after (?P<answered>\S+) s, id=(?P<id>\d+) prob=(?P<prob>\S+)$")


@dataclasses.dataclass(frozen=True)
class Load:
    """A model file, which both read."""

    name: str
    title: str
    model: str
    peers: list


@dataclasses.dataclass
class Row:
    """One row of the table."""

    load: str
    who: str
    seconds: list = dataclasses.field(default_factory=list)
    answered: list = dataclasses.field(default_factory=list)
    ids: list = None
    answer: tuple = None
    others: float = None
    problem: str = None


LOADS = [
    Load(
        "load", "SmolLM2 from its GGUF file, which the system has read before", "smollm2",
        [Peer("transformers", "peers", "load_smollm2.py", (), LINE)],
    ),
]


def measure_ours(load, causalcone, repeat, wait):
    """Loading alone as the command tells it, and a whole process from its start to its answer."""
    # Pulls the file if it is not there, and hashes it, which the command remembers.
    run([causalcone, "models", "pull", load.model], "causalcone models pull")
    run_json([causalcone, "models", "info", load.model, "--json"], "causalcone models info")
    WORK.mkdir(parents=True, exist_ok=True)
    experiment = WORK / "load.toml"
    experiment.write_text(
        f'[runs.base]\nprompt = "{PROMPT}"\n[[edit]]\nsite = "mlp_output"\nlayers = 0\npositions = "last"\nop = "zero"\n'
        '[read]\ntokens = [" Rome"]\n[sweep]\nlayers = "each"\nmetrics = ["prob"]\n', encoding="utf-8")
    wait_for_quiet(wait)
    watch = Watch()
    row = Row(load.name, "causalcone")
    for turn in range(repeat):
        out = WORK / "out" / load.name
        shutil.rmtree(out, ignore_errors=True)
        out.parent.mkdir(parents=True, exist_ok=True)
        swept = run_json([causalcone, "sweep", experiment, "-m", load.model, "--out", out, "--json"], "causalcone sweep")
        row.seconds.append(swept["seconds"]["load"])
        start = time.perf_counter()
        printed = run([causalcone, "top", PROMPT, "-m", load.model, "--json"], "causalcone top")
        row.answered.append(time.perf_counter() - start)
        answer = json.loads(printed)
        row.ids, first = answer["ids"], answer["top"][0]
        row.answer = (first["id"], first["prob"])
        say(f"{load.name}: causalcone {turn + 1}/{repeat}: {row.seconds[-1]:.3f} s, answered after {row.answered[-1]:.3f} s")
    row.others = watch.others()
    return row


def measure_peer(load, peer, own, causalcone, peers_dir, wait):
    """A peer's script, on our ids; whatever goes wrong is told in its row and stops nobody else."""
    row = Row(load.name, peer.name)
    try:
        setup.prepare_environment(peer.environment, peers_dir)
        file = run_json([causalcone, "models", "info", load.model, "--json"], "causalcone models info")["files"][0]
        wait_for_quiet(wait)
        watch = Watch()
        for line in run_peer(dataclasses.replace(peer, arguments=(file, *map(str, own.ids))), peers_dir):
            row.seconds.append(float(line["seconds"]))
            row.answered.append(float(line["answered"]))
            row.answer = (int(line["id"]), float(line["prob"]))
        row.others = watch.others()
        say(f"{load.name}: {peer.name}: {statistics.median(row.seconds):.3f} s")
    except Refused as problem:
        row.problem = str(problem)
        say(f"{load.name}: {peer.name}: {problem}")
    return row


def complaints(loads, rows):
    """Everything that is wrong with the results, one sentence each."""
    for load in loads:
        own = next(row for row in rows if (row.load, row.who) == (load.name, "causalcone"))
        for row in (row for row in rows if row.load == load.name):
            yield from hindered(row.load, row)
            if not row.problem and (row.answer[0] != own.answer[0] or abs(row.answer[1] - own.answer[1]) > TOLERANCE):
                yield f"{row.load}: ANSWERS DIFFER: {own.answer} is causalcone's and {row.answer} that of {row.who}"


def results(loads, rows):
    """The table."""
    table = [("work", "who", "seconds to load", "ratio", "seconds to the first answer", "ratio", "runs", "others", "answer")]
    for row in rows:
        own = next(mine for mine in rows if (mine.load, mine.who) == (row.load, "causalcone"))
        if row.problem:
            table.append((row.load, row.who, *"–" * 6, "could not be measured"))
            continue
        table.append((
            row.load, row.who, *of(row.seconds, own.seconds), *of(row.answered, own.answered), str(len(row.seconds)),
            share(row.others), f"id {row.answer[0]}, prob {row.answer[1]:.6f}"))
    return [*aligned(table), "", *(f"- {load.name}: {load.title}." for load in loads)]


def of(seconds, own):
    """The median with its range, and its ratio to ours."""
    return spread(seconds), ratio(statistics.median(seconds), statistics.median(own))
