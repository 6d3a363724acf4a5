"""`cityweave doctor`: does a site have what a profile asks for? Every finding is ok, or says what to change.

Slurm is asked through its own commands; what only a compute node can tell comes from one small trial job a partition.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cityweave.errors import CityweaveError, ConfigError, MissingCapability
from cityweave.fetched import VARIABLE, fetched_folder, verify
from cityweave.gpu import DEVICE_VARIABLE, visible_gpus
from cityweave.operations.costs import KINDS
from cityweave.profiles import Profile, Requests, read_profile

RULES = (*KINDS, "stereo", "fit_division")
_COMMAND_S = 30.0
_FILES_S = 30.0  # how long a file written on a node may take to appear here


@dataclass(frozen=True)
class Finding:
    what: str
    ok: bool
    text: str  # what was found; when not ok, also what to change


@dataclass(frozen=True)
class Partition:
    name: str
    up: bool
    gpus: dict[str, int]  # most on one node, by model; "" where the site names none
    mem_mb: float
    limit_min: float | None  # None: no limit

    @property
    def most_gpus(self) -> int:
        return max(self.gpus.values(), default=0)


def examine(folder: Path, *, gpu: bool, submit: bool, timeout_s: float, say: Callable[[str], None] = print) -> int:
    """Print every finding; 0 when all are ok, else the exit code of a missing capability."""
    bad = 0
    for finding in findings(folder, gpu=gpu, submit=submit, timeout_s=timeout_s):
        say(f"{'ok    ' if finding.ok else 'CHANGE'} {finding.what}: {finding.text}")
        bad += not finding.ok
    say("all is well" if not bad else f"{bad} to change")
    return MissingCapability.exit_code if bad else 0


def findings(folder: Path, *, gpu: bool, submit: bool, timeout_s: float) -> Iterator[Finding]:
    try:
        profile = read_profile(folder)
    except ConfigError as error:
        yield Finding("profile", False, str(error))
        return
    yield from _profile(profile)
    yield from _fetched()
    missing = [name for name in ("sbatch", "squeue", "sinfo", "scontrol") if shutil.which(name) is None]
    if missing:
        yield Finding(
            "programs", False, f"no {', '.join(missing)} on PATH: run this on a login node, or load Slurm's module"
        )
        return
    code, text = _ask("scontrol", "ping")
    if code != 0 or "UP" not in text.upper():
        yield Finding("controller", False, f"slurmctld doesn't answer ({_first(text)}): tell the site's administrators")
        return
    yield Finding("controller", True, _first(text))
    yield _accounting(profile)
    try:
        partitions = read_partitions()
    except MissingCapability as error:
        yield Finding("partitions", False, str(error))
        return
    yield from _requests(profile, partitions)
    if not submit:
        return
    asked = {name: profile.requests(name) for name in RULES}
    plain = next((each for each in asked.values() if not each.gpus and _exists(each, partitions)), None)
    holding = next((each for each in asked.values() if each.gpus and _exists(each, partitions)), None)
    if plain is not None or holding is None:
        yield from trial(plain or Requests(), "job", timeout_s)
    if gpu and holding is None:
        yield Finding("GPU job", False, "no rule of the profile asks for a GPU in a partition that exists: set gpu: 1")
    elif gpu and holding is not None:
        yield from trial(holding, "GPU job", timeout_s)


def _profile(profile: Profile) -> Iterator[Finding]:
    if not profile.slurm:
        yield Finding("profile", False, f"{profile.folder} has executor {profile.values.get('executor')}; set slurm")
        return
    unknown = [rule for rule in profile.rules() if rule not in (*RULES, "verdict")]
    if unknown:
        yield Finding("profile", False, f"set-resources names {', '.join(unknown)}; rules are {', '.join(RULES)}")
    else:
        yield Finding("profile", True, f"{profile.folder}, {profile.jobs} jobs at once")
    if importlib.util.find_spec("snakemake_executor_plugin_slurm") is None:
        yield Finding("executor", False, "snakemake-executor-plugin-slurm is not installed here: make setup EXTRAS=hpc")


def _fetched() -> Iterator[Finding]:
    folder = fetched_folder()
    if folder is None:
        return
    try:
        yield Finding("fetched files", True, f"{verify(folder)} files in {folder} have their checksums")
    except CityweaveError as error:
        yield Finding("fetched files", False, str(error))


def _ask(*command: str) -> tuple[int, str]:
    """Exit status and output of a command, whichever way it fails."""
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=_COMMAND_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return 1, str(error)
    return result.returncode, result.stdout.strip() or result.stderr.strip()


def _first(text: str) -> str:
    return text.splitlines()[0] if text else "no answer"


def _accounting(profile: Profile) -> Finding:
    _, text = _ask("scontrol", "show", "config")
    found = re.search(r"AccountingStorageType\s*=\s*(\S+)", text)
    kind = found[1] if found else "unknown"
    works = kind not in ("accounting_storage/none", "(null)") and shutil.which("sacct") is not None
    if works:
        code, answer = _ask("sacct", "-n", "-X", "-S", "now-1hour", "-o", "JobID")
        works = code == 0
        kind += "" if works else f", but sacct says: {_first(answer)}"
    used = profile.status_command
    advice = "slurm-status-command: squeue" if not works else "slurm-status-command: sacct"
    if used == "sacct" and not works:
        return Finding("accounting", False, f"{kind}: a run would wait for ever; set {advice} in the profile")
    if used == "squeue" and works:
        return Finding("accounting", True, f"{kind}; {advice} would work, too, and tells more")
    return Finding("accounting", True, f"{kind}, asked by {used}")


def read_partitions() -> dict[str, Partition]:
    code, text = _ask("sinfo", "-h", "-N", "-o", "%R|%a|%G|%m|%l|%T")
    if code != 0:
        raise MissingCapability(f"sinfo fails: {_first(text)}")
    found: dict[str, Partition] = {}
    for line in text.splitlines():
        name, available, gres, memory, limit, state = line.split("|")
        dead = re.match(r"down|drain|fail|inval|not_responding|unknown", state.lower()) or state.endswith("*")
        up = available == "up" and not dead  # a star: the node doesn't answer
        old = found.get(name, Partition(name, False, {}, 0.0, _minutes(limit)))
        gpus = dict(old.gpus)
        for model, count in re.findall(r"gpu(?::([A-Za-z_][\w.-]*))?:(\d+)", gres):
            gpus[model] = max(gpus.get(model, 0), int(count))
        most_mb = max(old.mem_mb, float(memory.rstrip("+")))
        found[name] = Partition(name, old.up or up, gpus, most_mb, old.limit_min)
    return dict(sorted(found.items()))  # sinfo's order isn't fixed


def _minutes(limit: str) -> float | None:
    """Slurm's [days-]hours:minutes:seconds."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", limit)
    if match is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return days * 1440 + hours * 60 + minutes + seconds / 60


def _exists(asked: Requests, partitions: dict[str, Partition]) -> bool:
    if asked.partition is not None and asked.partition not in partitions:
        return False
    return not asked.gpus or any(
        part.most_gpus >= asked.gpus for part in partitions.values() if asked.partition in (None, part.name)
    )


def _requests(profile: Profile, partitions: dict[str, Partition]) -> Iterator[Finding]:
    """Each different complaint once, with the rules that it holds for."""
    complaints: dict[str, list[str]] = {}
    for rule in RULES:
        for complaint in _complaints(profile.requests(rule), partitions):
            complaints.setdefault(complaint, []).append(rule)
    for complaint, rules in complaints.items():
        yield Finding("requests", False, f"{', '.join(rules)}: {complaint}")
    if not complaints:
        used = {profile.requests(rule).partition for rule in RULES}
        yield Finding(
            "requests", True, f"partitions {', '.join(sorted(name or '(default)' for name in used))} grant them"
        )


def _complaints(asked: Requests, partitions: dict[str, Partition]) -> Iterator[str]:
    if asked.partition is None:
        return
    names = ", ".join(f"{p.name}{f' ({p.most_gpus} GPU)' if p.gpus else ''}" for p in partitions.values())
    part = partitions.get(asked.partition)
    if part is None:
        yield f"partition {asked.partition} doesn't exist; set slurm_partition to one of {names}"
        return
    if not part.up:
        yield f"partition {part.name} has no node that is up; wait, or set slurm_partition to another of {names}"
    if asked.gpus > part.most_gpus:
        have = f"{part.most_gpus} a node" if part.gpus else "none"
        yield f"{asked.gpus} GPU asked of partition {part.name}, which has {have}; partitions are {names}"
    elif asked.gpu_model and asked.gpu_model not in part.gpus:
        models = ", ".join(filter(None, part.gpus)) or "none by name: leave gpu_model out"
        yield f"GPU model {asked.gpu_model} isn't in partition {part.name}; it has {models}"
    if asked.mem_mb and asked.mem_mb > part.mem_mb:
        yield f"mem_mb {asked.mem_mb:.0f} is more than a node of {part.name} has; at most {part.mem_mb:.0f}"
    if asked.runtime_min and part.limit_min and asked.runtime_min > part.limit_min:
        yield f"runtime {asked.runtime_min:.0f} is over the limit of {part.name}; at most {part.limit_min:.0f} minutes"


def trial(asked: Requests, what: str, timeout_s: float) -> Iterator[Finding]:
    """Submit a small job that writes into the working folder, and read what it wrote."""
    folder = Path.cwd() / f".doctor-{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    try:
        yield from _trial(asked, what, timeout_s, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _trial(asked: Requests, what: str, timeout_s: float, folder: Path) -> Iterator[Finding]:
    token = uuid.uuid4().hex
    here = shlex.quote(str(folder))
    script = folder / "job.sh"
    script.write_text(
        f"#!/bin/sh\necho {token} ${{SLURMD_NODENAME:-$(hostname)}} > {here}/token\n"
        f"{shlex.quote(sys.executable)} -m cityweave.operations.doctor {here}/node.json 2> {here}/error || true\n"
        f"touch {here}/end\n"
    )
    options = [f"--job-name=cityweave-{what.replace(' ', '-')}", f"--output={folder}/out", "--time=5", "--mem=1000"]
    options += [f"--partition={asked.partition}"] if asked.partition else []
    if asked.gpus:
        options.append(f"--gres=gpu:{asked.gpu_model + ':' if asked.gpu_model else ''}{asked.gpus}")
    code, text = _ask("sbatch", "--parsable", *options, str(script))
    where = f"partition {asked.partition or '(default)'}"
    if code != 0:
        yield Finding(what, False, f"sbatch refuses in {where}: {_first(text)}; an account or QOS may be missing")
        return
    job = text.splitlines()[-1].split(";")[0]
    state = _await(job, folder / "end", timeout_s)
    if state in ("PENDING", "RUNNING", "CONFIGURING"):
        _, reason = _ask("squeue", "-h", "-j", job, "-o", "%r")
        _ask("scancel", job)
        yield Finding(
            what, False, f"job {job} in {where} is {state} after {timeout_s:.0f} s ({_first(reason)}); taken back"
        )
        return
    if not (folder / "token").is_file() or token not in (folder / "token").read_text():
        yield Finding(what, False, f"job {job} in {where} {_ending(job)}")
        return
    host = (folder / "token").read_text().split()[1]
    yield Finding(what, True, f"{job} ran on {host} in {where} and its file is visible here")
    yield from _node(folder, host, asked, what)


def _ending(job: str) -> str:
    """What became of a job that left nothing behind."""
    _, text = _ask("scontrol", "show", "job", "-o", job)
    facts = dict(re.findall(r"(JobState|Reason|NodeList|ExitCode)=(\S+)", text))
    state = facts.get("JobState", "COMPLETED")
    if state != "COMPLETED":
        return (
            f"is {state} ({facts.get('Reason')}, exit {facts.get('ExitCode')}) on {facts.get('NodeList')}, and silent: "
            "look at that node with `scontrol show node`"
        )
    return (
        "ended and left nothing here: no file system that its node shares; put clone and results on one that every "
        "node mounts"
    )


def _await(job: str, end: Path, timeout_s: float) -> str:
    """Wait for a job's last file. The queue's last word on it, empty when it left the queue."""
    deadline, state, gone_at = time.monotonic() + timeout_s, "", None
    while time.monotonic() < deadline:
        os.listdir(end.parent)  # noqa: PTH208 - makes a network file system look again
        if end.exists():
            return ""
        code, state = _ask("squeue", "-h", "-j", job, "-o", "%T")
        if code != 0 or not state or state == "COMPLETED":
            gone_at = gone_at or time.monotonic()
            if time.monotonic() - gone_at > min(_FILES_S, timeout_s):
                return ""
        time.sleep(min(1.0, timeout_s / 20))
    return state if code == 0 else ""


def _node(folder: Path, host: str, asked: Requests, what: str) -> Iterator[Finding]:
    try:
        node = json.loads((folder / "node.json").read_text())
    except (OSError, ValueError):
        error = (folder / "error").read_text().strip() if (folder / "error").is_file() else ""
        yield Finding(
            f"environment ({what})", False, f"{sys.executable} can't import cityweave on {host}: "
            f"{error.splitlines()[-1] if error else 'it is not there'}; install on a file system that nodes share, or "
            "load the same modules in ~/.bashrc"
        )  # fmt: skip
        return
    if node["version"] != _version():
        yield Finding(
            f"environment ({what})", False, f"{host} imports cityweave {node['version']}, here is {_version()}"
        )
    else:
        yield Finding(f"environment ({what})", True, f"cityweave {node['version']} from {node['package']} on {host}")
    if node["cpu"] != _cpu() and fetched_folder():
        yield Finding(
            "compiled code", True, f"{host} has another CPU than this node: run fetch in a job there to spare compiling"
        )
    if node["fetched"] != os.environ.get(VARIABLE):
        yield Finding(
            "fetched files",
            False,
            f"{VARIABLE} doesn't reach {host}: export it before snakemake, and don't set --export",
        )
    if asked.gpus and node["gpus"]:
        yield Finding("GPU", True, f"{', '.join(node['gpus'])} visible on {host}")
    elif asked.gpus:
        held = f"the job held GPU {node['cuda_visible_devices']}, but the driver shows none on {host}"
        stand_in = os.environ.get(DEVICE_VARIABLE) == "cpu"
        advice = f"as {DEVICE_VARIABLE}=cpu expects" if stand_in else "not a GPU node, or a broken driver"
        yield Finding("GPU", stand_in, f"{held}: {advice}")


def _version() -> str:
    import cityweave

    return cityweave.__version__


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def _report_node(path: Path) -> None:
    """What a trial job writes: run on the node."""
    import cityweave

    package = Path(cityweave.__file__).parent
    facts = {
        "version": _version(),
        "package": str(package),
        "cpu": _cpu(),
        "gpus": visible_gpus(),
        "cuda_visible_devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "fetched": os.environ.get(VARIABLE),
    }
    path.write_text(json.dumps(facts))


if __name__ == "__main__":
    _report_node(Path(sys.argv[1]))
