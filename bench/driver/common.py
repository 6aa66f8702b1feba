"""Where things are, and how to run them."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

BENCH = pathlib.Path(__file__).resolve().parent.parent
ROOT = BENCH.parent
WORK = BENCH / ".work"
"""What bench/run makes beside the environments: the random model, results of sweeps. Ignored by git."""


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
