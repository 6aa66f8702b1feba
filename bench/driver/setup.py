"""What has to be there first: the peers' environments, the random GPT-2, our own command."""

import importlib.util
import json
import os
import platform
import shutil
import sys

from .common import BENCH, WORK, Refused, run, run_json, say

ENVIRONMENTS = {
    "peers": "torch==2.8.0 transformers==4.46.3 pyvene==0.1.8 gguf accelerate sentencepiece".split(),
    "llama": "llama-cpp-python==0.3.36 gguf".split(),
    "peers2": "torch==2.8.0 transformer-lens==4.3.0 nnsight==0.8.1 gguf sentencepiece".split(),
}
"""The environments, and what pip installs into each; TransformerLens and pyvene want different transformers. llama.cpp is
compiled, for which a C++ compiler has to be there."""

VERSIONS = """
import importlib.metadata, json, sys
def version(name):
    try: return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError: return None
print(json.dumps({name: version(name) for name in sys.argv[1:]}))
"""


def python_of(environment, peers_dir):
    """The environment's Python."""
    folder = peers_dir / environment
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def versions(environment, peers_dir, names):
    """The versions of packages in an environment; None for one that is not there."""
    return run_json([python_of(environment, peers_dir), "-c", VERSIONS, *names], "asking for versions")


def is_ready(environment, peers_dir):
    """Whether everything the environment needs is in it, in the pinned versions."""
    if not python_of(environment, peers_dir).exists():
        return False
    pins = dict((package + "==").split("==")[:2] for package in ENVIRONMENTS[environment])
    found = versions(environment, peers_dir, pins)
    return all(
        found[name] is not None and (not pin or found[name].split("+")[0] == pin) for name, pin in pins.items())


def prepare_environment(environment, peers_dir):
    """Makes an environment, unless it is there already."""
    if is_ready(environment, peers_dir):
        return
    for module in ("venv", "ensurepip"):
        if importlib.util.find_spec(module) is None:
            raise Refused(
                f"{sys.executable} (Python {platform.python_version()}) has no module {module}, which the peers' "
                "environments need; on Debian and Ubuntu: apt install python3-venv. Or run bench/run with another "
                "Python, or name ready environments with --peers-dir, or do --only big, which needs none")
    packages = ENVIRONMENTS[environment]
    say(f"setting up {environment}: pip install {' '.join(packages)} (gigabytes, minutes; once)")
    peers_dir.mkdir(parents=True, exist_ok=True)
    python = python_of(environment, peers_dir)
    if not python.exists():
        run([sys.executable, "-m", "venv", peers_dir / environment], f"making the environment {environment}")
    pip = [python, "-m", "pip"]
    run([*pip, "--version"], f"pip in the environment {environment}")
    run([*pip, "install", "--quiet", *packages], f"pip install {' '.join(packages)}")
    if not is_ready(environment, peers_dir):
        raise Refused(f"pip ended well, yet {environment} lacks something of: {' '.join(packages)}")


def random_gpt2(peers_dir):
    """The random GPT-2 of the peers' scripts as a Hugging Face directory; written once, whole or not at all."""
    folder = WORK / "gpt2"
    if folder.exists():
        return folder
    prepare_environment("peers", peers_dir)
    say("writing the random GPT-2 (498 MB, once)")
    part = WORK / "gpt2.part"
    shutil.rmtree(part, ignore_errors=True)
    run([python_of("peers", peers_dir), BENCH / "peers" / "write_gpt2.py", part], "writing the random GPT-2")
    part.rename(folder)
    return folder


def binaries(build):
    """Our command and the GEMM timer, built if that is asked for."""
    if shutil.which("cargo") is None:
        raise Refused("there is no cargo on the path; Rust comes from rustup")
    if build:
        say("cargo build --release (minutes the first time)")
        run(["cargo", "build", "--release", "--locked", "-p", "causalcone-cli", "-p", "causalcone-bench"], "the build")
    metadata = run(["cargo", "metadata", "--no-deps", "--format-version", "1", "--locked"], "cargo metadata")
    folder = os.path.join(json.loads(metadata)["target_directory"], "release")
    found = [shutil.which(name, path=folder) for name in ("causalcone", "causalcone-bench")]
    if None in found:
        raise Refused("there is no release build yet; leave out --no-build")
    return found


def machine(environments, peers_dir):
    """The machine and the versions of everything that ran, as (what, value) pairs."""
    facts = [("processor", f"{processor()}, {cores()} cores"), ("memory", memory()), ("system", platform.platform(terse=True))]
    facts.append(("rustc", run(["rustc", "--version"], "rustc").split(" ", 1)[1].strip()))
    for environment in environments:
        names = [package.split("==")[0] for package in ENVIRONMENTS[environment] if "==" in package]
        found = versions(environment, peers_dir, dict.fromkeys([*names, "transformers"]))
        python = run([python_of(environment, peers_dir), "-c", "import platform; print(platform.python_version())"], "python")
        listed = [f"Python {python.strip()}", *(f"{name} {version}" for name, version in found.items())]
        facts.append((environment, ", ".join(listed)))
    return facts


def processor():
    """The processor's name, where the system tells."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def cores():
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def memory():
    """The machine's memory."""
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB"
    except (ValueError, OSError, AttributeError):
        return "unknown"
