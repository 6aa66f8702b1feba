"""Where things are, and how to run them."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

BENCH = pathlib.Path(__file__).resolve().parent.parent
ROOT = BENCH.parent
WORK = BENCH / ".work"
"""What bench/run makes beside the environments: the random model, results of sweeps. Ignored by git."""


BUSY = 0.05
"""Others may take this share of the machine; beyond it, seconds are not to be believed."""


class Refused(Exception):
    """Something is missing or failed; the text says what, and what to do."""


def say(text):
    """Tells the user how far we are; results alone go to stdout."""
    print(text, file=sys.stderr, flush=True)


def run(command, what, env=None):
    """Runs a command to its end and returns its stdout; stderr is shown only if it fails."""
    try:
        done = subprocess.run(
            [str(part) for part in command], cwd=ROOT, env=env, stdin=subprocess.DEVNULL, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    except OSError as error:
        raise Refused(f"{what}: cannot run {command[0]}: {error.strerror}") from error
    if done.returncode != 0:
        tail = "\n".join((done.stderr.strip() or done.stdout.strip()).splitlines()[-8:])
        raise Refused(f"{what} failed with exit code {done.returncode}:\n{tail}")
    return done.stdout


def run_json(command, what):
    """Runs a command that prints one JSON document."""
    return json.loads(run(command, what))


def run_measured(command, what):
    """Runs a command; returns its stdout and the most memory it held, in bytes (VmHWM, where there is one)."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(
            [str(part) for part in command], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.terminate()
            process.wait()
            raise
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        if process.returncode != 0:
            tail = "\n".join(err.read().decode(errors="replace").strip().splitlines()[-8:])
            raise Refused(f"{what} failed with exit code {process.returncode}:\n{tail}")
        unit = 1 if sys.platform == "darwin" else 1024
        return out.read().decode(), usage.ru_maxrss * unit


class Watch:
    """How much of the machine's processor time others took since it was made: what our own children did not."""

    def __init__(self):
        self.start = ticks()

    def others(self):
        """The share, 0 to 1; None where the system does not tell."""
        now = ticks()
        if now is None or self.start is None:
            return None
        total, busy, own = (after - before for after, before in zip(now, self.start))
        return max(0.0, busy - own) / total if total > 0 else 0.0


def ticks():
    """Seconds of all cores together since the machine started: in all, not idle, and ours and our ended children's."""
    try:
        with open("/proc/stat", encoding="ascii") as file:
            # user nice system idle iowait irq softirq steal; guest time is in user already.
            fields = [int(field) / os.sysconf("SC_CLK_TCK") for field in file.readline().split()[1:9]]
    except (OSError, ValueError):
        return None
    own = os.times()
    return sum(fields), sum(fields) - fields[3] - fields[4], sum(own[:4])


def wait_for_quiet(minutes):
    """Waits until others leave the machine alone for five seconds, but no longer than this."""
    end = time.monotonic() + 60 * minutes
    told = False
    while time.monotonic() < end:
        watch = Watch()
        time.sleep(5)
        share = watch.others()
        if share is None or share <= BUSY:
            return
        if not told:
            say(f"others take {share:.0%} of this machine; waiting up to {minutes} minutes for it to be quiet")
            told = True


def fastest(gemm):
    """The GEMM rate of whichever is faster, candle or we."""
    return max(gemm["gflops"].values())
