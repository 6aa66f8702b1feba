"""The Python package: a loop over one intervention after another beside pyvene, and what the package costs beside the
command."""

import dataclasses
import re
import statistics
import tempfile

from . import setup
from .common import BENCH, ROOT, WORK, Refused, Watch, run, run_json, say, wait_for_quiet
from .report import aligned, share, spread
from .works import Peer

SCRIPTS = BENCH / "python"
LINE = r"^pyvene seed sweep: (?P<seconds>\S+) s total .* sum=(?P<sum>[^,]+),"

TITLES = {
    "loop": "the tutorial's 120 cells, a call of IntervenableModel each, rows kept between calls; GPT-2 small's shape",
    "loop, nothing kept": "the same with keep = 0",
    "sweep": "the 180 cells of `swap` from Python, until the table is written; the other is the command",
    "array": "500 MB of logits returned as a NumPy array: the most memory beside it, as a part of it",
}


@dataclasses.dataclass(frozen=True)
class Work:
    """All of it."""

    name: str = "python"
    title: str = "the Python package: a loop of pyvene's calls, a sweep, a large array"
    peers: tuple = (Peer("pyvene", "peers", "seed_sweep_pyvene.py", (), LINE),)


WORKS = [Work()]


@dataclasses.dataclass
class Row:
    """One row of the table."""

    what: str
    ours: list
    theirs: list
    checksums: tuple
    others: float = None


def prepare():
    """An environment with the package in it, built from this checkout."""
    folder = WORK / "python"
    python = folder / "bin" / "python"
    if not python.exists():
        say("making an environment for the package (once)")
        run(["python3", "-m", "venv", folder], "making the environment of the package")
    say("pip install ./bindings/python (minutes the first time)")
    run([python, "-m", "pip", "install", "--quiet", "--force-reinstall", "--no-deps", ROOT / "bindings" / "python"],
        "pip install ./bindings/python")
    run([python, "-m", "pip", "install", "--quiet", "numpy"], "pip install numpy")
    return python


def measure(model, causalcone, peers, peers_dir, repeat, wait):
    """All rows; a peer that fails is told, and its row left out."""
    python = prepare()
    rows = []
    wait_for_quiet(wait)
    watch = Watch()
    ours = run_json([python, SCRIPTS / "loop.py", model, repeat], "loop.py")
    bare = run_json([python, SCRIPTS / "loop.py", model, repeat, 0], "loop.py without rows kept")
    theirs = []
    if "pyvene" in peers:
        setup.prepare_environment("peers", peers_dir)
        for _ in range(max(1, repeat // 2)):
            printed = run([setup.python_of("peers", peers_dir), BENCH / "peers" / "seed_sweep_pyvene.py"], "pyvene")
            found = re.search(LINE, printed, re.MULTILINE)
            if not found:
                raise Refused(f"pyvene printed no line of results:\n{printed[-500:]}")
            theirs.append((float(found["seconds"]), float(found["sum"])))
    seconds = [one for one, _ in theirs]
    sums = (ours["sum"][0], theirs[0][1] if theirs else ours["sum"][0])
    rows.append(Row("loop", ours["seconds"], seconds, sums, watch.others()))
    rows.append(Row("loop, nothing kept", bare["seconds"], seconds, (bare["sum"][0], sums[1]), rows[0].others))
    say(f"python: loop {statistics.median(ours['seconds']):.2f} s")

    wait_for_quiet(wait)
    watch = Watch()
    file = BENCH / "experiments" / "swap.toml"
    command, sums = [], []
    swept = run_json([python, SCRIPTS / "sweep.py", file, model, repeat], "sweep.py")
    for _ in range(repeat):
        with tempfile.TemporaryDirectory() as out:
            made = [causalcone, "sweep", file, "-m", model, "--out", out, "--force", "--json"]
            command.append(run_json(made, "causalcone sweep")["seconds"]["sweep"])
            rows_of = (line.split(",") for line in (open(f"{out}/cells.csv", encoding="utf-8").read().splitlines()))
            column = next(rows_of).index("value")
            sums.append(sum(float(row[column]) for row in rows_of if row[column]))
    rows.append(Row("sweep", swept["seconds"], command, (swept["sum"][0], sums[0]), watch.others()))
    array = run_json([python, SCRIPTS / "array.py", "smollm2"], "array.py")
    rows.append(Row("array", [array["rise"] / array["array"]], [], (array["array"], array["array"])))
    return rows


def complaints(rows):
    """Everything that is wrong with the results, one sentence each."""
    for row in rows:
        mine, theirs = row.checksums
        if not abs(mine - theirs) <= 1e-4 * max(1.0, abs(theirs)):
            yield f"python, {row.what}: CHECKSUMS DIFFER: {mine} and {theirs}"


def results(rows):
    """The table."""
    table = [("work", "ours", "other", "ratio", "others", "checksum")]
    for row in rows:
        if row.what == "array":
            table.append((row.what, f"{row.ours[0]:.2f}", "–", "–", "–", f"{row.checksums[0] / 1e6:.0f} MB"))
            continue
        ratio = statistics.median(row.theirs) / statistics.median(row.ours) if row.theirs else None
        table.append((
            row.what, spread(row.ours), spread(row.theirs) if row.theirs else "–",
            "–" if ratio is None else f"{ratio:.2f}", share(row.others), f"{row.checksums[0]:.6g}"))
    return [*aligned(table), "", *(f"- {what}: {title}." for what, title in TITLES.items())]
