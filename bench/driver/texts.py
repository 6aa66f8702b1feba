"""Generating text under an edit: tokens a second, of ours and the peers', and texts that must be equal."""

import ast
import dataclasses
import os
import statistics

from . import setup
from .common import BENCH, WORK, Refused, Watch, run, run_json, say, wait_for_quiet
from .report import aligned, hindered, ratio, share, spread
from .works import Peer, run_peer

FILE_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
"""What the peers' scripts call the model."""

ROUNDS = {"llama.cpp": "rounds activations to eight bits"}
"""Peers whose texts may part from ours, and why."""

LINE = r"^64 tokens (?P<seconds>\S+) s = \S+ tok/s (?P<text>'.*'|\".*\")$"


@dataclasses.dataclass(frozen=True)
class Text:
    """A text to generate, for us an experiment file and for the peers a script."""

    name: str
    title: str
    model: str
    tokens: int
    peers: list
    is_packed: bool = False  # whether weights stay as they are in the file

    @property
    def file(self):
        """The experiment file."""
        return BENCH / "experiments" / f"{self.name}.toml"


@dataclasses.dataclass
class Row:
    """One row of the table."""

    work: str
    who: str
    seconds: list = dataclasses.field(default_factory=list)
    text: str = None
    bandwidth: float = None  # in bytes a second, of ours
    weights: float = None  # in bytes, of ours
    others: float = None
    problem: str = None


TRANSFORMERS = Peer("transformers", "peers", "smol_generate_hf.py", ("{folder}",), LINE)
LLAMA = Peer("llama.cpp", "llama", "smol_generate_llamacpp.py", ("{file}", "{vector}"), LINE)

TEXTS = [
    Text(
        "text", "64 tokens of SmolLM2 in f32, greedy, a vector added to the output of block 15 in every pass", "smollm2", 64,
        [TRANSFORMERS],
    ),
    Text(
        "text-packed", "the same on the file's own weights of four and eight bits; transformers again in f32", "smollm2", 64,
        [TRANSFORMERS, LLAMA], is_packed=True,
    ),
]


def measure_ours(text, causalcone, timer, repeat, wait):
    """The steered text, and with it the unsteered one, which grows beside it."""
    run([causalcone, "models", "pull", text.model], "causalcone models pull")
    info = run_json([causalcone, "models", "info", text.model, "--json"], "causalcone models info")
    weights = os.path.getsize(info["files"][0]) if text.is_packed else info["parameters"] * 4
    wait_for_quiet(wait)
    watch = Watch()
    row = Row(text.name, "causalcone", weights=weights)
    for turn in range(repeat):
        made = run_json([causalcone, "generate", text.file, "-m", text.model, "--json"], "causalcone generate")
        row.seconds.append(made["seconds"]["generate"])
        row.text = made["counterfactual"]["text"]
        say(f"{text.name}: causalcone {turn + 1}/{repeat}: {row.seconds[-1]:.3f} s")
    row.others = watch.others()
    row.bandwidth = run_json([timer, "read", "540"], "the read timer")["gb_per_s"] * 1e9
    return row


def measure_peer(text, peer, causalcone, peers_dir, wait):
    """A peer's script on the same file; whatever goes wrong is told in its row and stops nobody else."""
    row = Row(text.name, peer.name)
    try:
        setup.prepare_environment(peer.environment, peers_dir)
        file = run_json([causalcone, "models", "info", text.model, "--json"], "causalcone models info")["files"][0]
        folder = WORK / "text"
        folder.mkdir(parents=True, exist_ok=True)
        link = folder / FILE_NAME
        link.unlink(missing_ok=True)
        link.symlink_to(file)
        vector = folder / "vector.gguf"
        run([causalcone, "save", text.file, "-m", text.model, "--out", vector, "--force"], "causalcone save")
        places = {"folder": folder, "file": link, "vector": vector}
        peer = dataclasses.replace(peer, arguments=tuple(each.format(**places) for each in peer.arguments))
        wait_for_quiet(wait)
        watch = Watch()
        for line in run_peer(peer, peers_dir):
            row.seconds.append(float(line["seconds"]))
            row.text = ast.literal_eval(line["text"])
        row.others = watch.others()
        say(f"{text.name}: {peer.name}: {statistics.median(row.seconds):.3f} s")
    except Refused as problem:
        row.problem = str(problem)
        say(f"{text.name}: {peer.name}: {problem}")
    return row


def complaints(texts, rows):
    """Everything that is wrong with the results, one sentence each."""
    for text in texts:
        own = next(row for row in rows if (row.work, row.who) == (text.name, "causalcone"))
        for row in (row for row in rows if row.work == text.name):
            yield from hindered(row.work, row)
            if not row.problem and not row.text.endswith(own.text) and row.who not in ROUNDS:
                yield f"{row.work}: TEXTS DIFFER: {own.text!r} is causalcone's and {row.text!r} that of {row.who}"


def results(texts, rows):
    """The table."""
    table = [("work", "who", "tokens a second", "ours to theirs", "runs", "others", "text")]
    notes = []
    for text in texts:
        own = next(row for row in rows if (row.work, row.who) == (text.name, "causalcone"))
        rate = text.tokens / statistics.median(own.seconds)
        for row in (row for row in rows if row.work == text.name):
            if row.problem:
                table.append((row.work, row.who, *"–" * 4, "could not be measured"))
                continue
            rates = [text.tokens / seconds for seconds in row.seconds]
            same = "equal" if row.text.endswith(own.text) else ROUNDS.get(row.who, "DIFFERS")
            table.append((
                row.work, row.who, spread(rates, 1), ratio(rate, statistics.median(rates)), str(len(rates)), share(row.others), same))
        notes.append(f"- {text.name}: {text.title}. Ours also makes the text without it, beside it.")
        floor = own.bandwidth / own.weights
        notes.append(
            f"- {text.name}, bandwidth: {own.weights / 1e6:.0f} MB of weights, read once a step at {own.bandwidth / 1e9:.1f} GB/s, "
            f"would be {floor:.1f} tokens a second; ours are {rate / floor:.0%} of that.")
    return [*aligned(table), "", *notes]
