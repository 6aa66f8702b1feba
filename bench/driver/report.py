"""The table of results, for the terminal and for BENCHMARKS.md; both are the same Markdown."""

import datetime
import statistics

from . import setup
from .common import BUSY, ROOT, Refused, fastest

TOLERANCE = 1e-3
"""Checksums may differ by this much, and by this part of themselves where they are smaller than 1."""

PAGE = ROOT / "BENCHMARKS.md"
BEGIN = "<!-- {}: from here to the end mark, written by bench/run --write. -->"
END = "<!-- End of {}. -->"

LABELS = {"c0_3": "[0,3]", "c5_9": "[5,9]"}


def complaints(works, rows, ours):
    """Everything that is wrong with the results, one sentence each."""
    found = []
    for work in works:
        own = next(row for row in rows if row.work == work.name and row.who == "causalcone")
        for row in rows:
            if row.work != work.name:
                continue
            found += hindered(work.name, row)
            if row is own:
                continue
            for name, theirs in row.checksums.items():
                mine = own.checksums[name]
                if not abs(mine - theirs) <= TOLERANCE * min(1.0, abs(theirs)):
                    label = LABELS.get(name, name)
                    found.append(
                        f"{work.name}: CHECKSUMS DIFFER: {label} is {mine:{work.digits}} for causalcone and "
                        f"{theirs:{work.digits}} for {row.who}: one of the two is wrong, and its seconds mean nothing")
        about = ours[work.name]
        if about.memory > about.memory_limit:
            found.append(f"{work.name}: TOO MUCH MEMORY: {megabytes(about.memory)}, the limit is {megabytes(about.memory_limit)}")
    return found


def results(works, rows, ours):
    """The table, and beneath it what it says of us alone."""
    table = [("work", "who", "seconds", "runs", "ratio", "others", "checksums")]
    for row in rows:
        work = next(work for work in works if work.name == row.work)
        own = next(mine for mine in rows if mine.work == row.work and mine.who == "causalcone")
        if row.problem and not row.seconds:
            table.append((row.work, row.who, "–", "0", "–", "–", "could not be measured"))
            continue
        numbers = ", ".join(f"{LABELS.get(name, name)} {value:{work.digits}}" for name, value in row.checksums.items())
        table.append((row.work, row.who, spread(row.seconds), str(len(row.seconds)), ratio(row.median, own.median), share(row.others), numbers))
    lines = aligned(table)
    lines.append("")
    lines += [f"- {work.name}: {work.title}; {work.cells} cells." for work in works]
    for work in works:
        own = next(row for row in rows if row.work == work.name and row.who == "causalcone")
        lines += [f"- {work.name}, {text}" for text in details(own, ours[work.name])]
    return lines


def both(measured):
    """candle's GEMM rate and ours."""
    return f"{measured['gflops']['candle']:.0f} / {measured['gflops']['ours']:.0f}"


def details(own, about):
    """How busy the machine was with arithmetic, and how much memory was held."""
    gemm, explained = about.gemm, about.explained
    shapes = ", ".join(f"{shape['k']}×{shape['n']} {both(shape)}" for shape in gemm["shapes"])
    peak = f"the machine's own GEMM rate, candle's / ours, is {both(gemm)} GFLOP/s ({gemm['rows']} rows; {shapes})"
    rows = f"{explained['rows_computed']} of {explained['rows_naive']} rows computed"
    if explained.get("flops") is not None:
        flops = explained["flops"]
        rate = flops / own.median / 1e9
        yield f"arithmetic: {rows}, {flops / 1e9:.1f} GFLOP in {own.median:.3f} s = {rate:.1f} GFLOP/s; {peak}: {100 * rate / fastest(gemm):.0f} % of the faster."
    else:
        yield f"arithmetic: {rows} in {own.median:.3f} s; this build's explain does not say how many FLOPs that is; {peak}."
    yield (
        f"memory: {megabytes(about.memory)} at the peak; the limit is {megabytes(about.memory_limit)} "
        f"(1.25 × {megabytes(about.weights)} of f32 weights + 400 MB). Loading the model, not counted above: {about.load:.2f} s.")


def hindered(name, row):
    """What kept a row's seconds from being measured, or from being believed, one sentence each."""
    if row.others is not None and row.others > BUSY:
        yield f"{name}: {row.who} had the machine not for itself: others took {share(row.others)} of it"
    if row.problem:
        yield f"{name}: {row.who} could not be measured: {row.problem}"


def spread(numbers, digits=3):
    """The median, and the range if there is one."""
    text = f"{statistics.median(numbers):.{digits}f}"
    if len(numbers) > 1:
        text += f" ({min(numbers):.{digits}f} – {max(numbers):.{digits}f})"
    return text


def ratio(one, other):
    """One number over another, to two digits."""
    times = one / other
    return f"{times:.0f}" if times >= 10 else f"{times:.2g}"


def share(part):
    """A part of 1 in percent."""
    return "–" if part is None else f"{100 * part:.0f} %"


def megabytes(count):
    """Bytes in MB of a million."""
    return f"{count / 1e6:.0f} MB"


def aligned(table):
    """A Markdown table whose columns stand under each other."""
    widths = [max(len(cell) for cell in column) for column in zip(*table)]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in table]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return lines


def write(section, lines, command, environments, peers_dir):
    """Puts a section of the results into BENCHMARKS.md, between its marks; everything else there is written by hand."""
    page = PAGE.read_text(encoding="utf-8")
    begin, end = BEGIN.format(section.capitalize()), END.format(section)
    if begin not in page or end not in page:
        raise Refused(f"{PAGE.name} has lost the marks between which {section} go: {begin} and {end}")
    before, rest = page.split(begin, 1)
    after = rest.split(end, 1)[1]
    facts = [("command", f"`{command}`"), ("date", datetime.date.today().isoformat())]
    facts += setup.machine(environments, peers_dir)
    facts = aligned([("", "measured with"), *facts])
    block = "\n".join([begin, "", *lines, "", *facts, "", end])
    PAGE.write_text(before + block + after, encoding="utf-8")
