"""A private SLURM cluster on one machine: own keys, ports and folders, two nodes, stand-in GPUs.

Nothing outside its folder is read or written, and only its own processes are ended: they are known by the folder's path
in their environment. The `bin` folder goes first on PATH; its wrappers lead to this cluster, also where SLURM_CONF is
stripped from the environment, and note what was submitted and what every job was given.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

NODES = ("node1", "node2")
DAEMONS = ("munged", "slurmctld", "slurmd")
ACCOUNTING = ("slurmdbd", "mariadbd", "mariadb-install-db")
# SLURM leaves a requeued job alone for as long as a job's credential lives, two minutes by default.
REQUEUE_HOLD_S = 15
CLIENTS = ("sbatch", "squeue", "scontrol", "scancel", "sinfo", "srun", "sacct", "sacctmgr", "salloc", "sshare", "seff")
SLURM_CONF = """\
ClusterName=private
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire={requeue_hold_s}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=5,bf_interval=5,batch_sched_delay=1,defer
GresTypes=gpu
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
MinJobAge=300
ReturnToService=2
SlurmdTimeout={slurmd_timeout_s}
SlurmctldTimeout=30
InactiveLimit=0
KillWait=2
MailProg=/bin/true
{accounting}
{nodes}
PartitionName=cpu Nodes=ALL Default=YES LLN=YES PriorityTier=1 MaxTime=INFINITE
PartitionName=gpu Nodes=ALL LLN=YES PriorityTier=1 MaxTime=INFINITE
PartitionName=urgent Nodes=ALL PriorityTier=10 PreemptMode=OFF MaxTime=INFINITE
"""
SLURMDBD_CONF = """\
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={dbd_port}
SlurmUser={user}
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={db_port}
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct
PidFile={folder}/slurmdbd.pid
LogFile={folder}/slurmdbd.log
"""
WRAPPER = """\
#!/bin/bash
export SLURM_CONF={folder}/slurm.conf
exec {real} "$@"
"""
# What was asked for, and under which id.
SBATCH = """\
#!/bin/bash
export SLURM_CONF={folder}/slurm.conf
answer=$({real} "$@") || exit
echo "$answer"
id=${{answer##* }}
[[ ! $id =~ ^[0-9]+$ ]] || printf '%s\\0' "$@" > {folder}/submitted/$id
"""
# What a job was given: the job step of the executor starts the work with srun.
SRUN = """\
#!/bin/bash
export SLURM_CONF={folder}/slurm.conf
echo "$SLURM_JOB_ID $SLURMD_NODENAME ${{CUDA_VISIBLE_DEVICES:--}}" >> {folder}/started
exec {real} "$@"
"""


def find(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin:/usr/local/sbin")


def missing_programs(accounting: bool = False) -> list[str]:
    return [program for program in DAEMONS + (ACCOUNTING if accounting else ()) if find(program) is None]


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def wait_for(condition: Callable[[], bool], what: str, timeout_s: float = 60, every_s: float = 0.2) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout_s:g} s")
        time.sleep(every_s)


@dataclass(frozen=True)
class Submitted:
    """One sbatch call of the workflow."""

    job_id: str
    arguments: tuple[str, ...]

    @property
    def comment(self) -> str:
        """rule_{name}_wildcards_{values}, as the executor writes it."""
        return self.value("--comment") or ""

    @property
    def rule(self) -> str:
        return self.comment.removeprefix("rule_").split("_wildcards_")[0]

    def value(self, option: str) -> str | None:
        for index, argument in enumerate(self.arguments):
            if argument == option:
                return self.arguments[index + 1]
            if argument.startswith(option + "="):
                return argument.removeprefix(option + "=")
        return None


@dataclass(frozen=True)
class Started:
    """One start of a job on a node; a job that was requeued has several."""

    job_id: str
    node: str
    gpus: tuple[str, ...]


class PrivateCluster:
    """Started by `start`, taken down by `stop`; use it with `with`."""

    def __init__(self, *, accounting: bool = False, cpus: int = 2, memory_mb: int = 64000, gpus: int = 2) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="cw-"))  # short: a socket's path holds 107 characters
        self.folder.chmod(0o755)
        self.accounting = accounting
        self.user = getpass.getuser()
        self.host = socket.gethostname().split(".")[0]
        ports = free_ports(len(NODES) + 3)
        self.ctld_port, self.dbd_port, self.db_port = ports[:3]
        self.node_ports = dict(zip(NODES, ports[3:], strict=True))
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        for name in ("munge", "state", "spool", "bin", "db", "submitted", *(f"spool/{node}" for node in NODES)):
            (self.folder / name).mkdir()
        self._write_config(cpus, memory_mb, gpus)
        self._write_wrappers()

    def __enter__(self) -> PrivateCluster:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def environment(self) -> dict[str, str]:
        own = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM", "SBATCH", "PYTHONPATH"))}
        return own | {
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "SLURM_CONF": str(self.folder / "slurm.conf"),
            "CITYWEAVE_DEVICE": "cpu",  # the GPUs are stand-ins: without this, jobs that hold one fail
        }

    def _write_config(self, cpus: int, memory_mb: int, gpus: int) -> None:
        facts = {"folder": self.folder, "user": self.user, "host": self.host}
        nodes = "\n".join(
            f"NodeName={node} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} CPUs={cpus} RealMemory={memory_mb} "
            f"Gres=gpu:{gpus} State=UNKNOWN"
            for node, port in self.node_ports.items()
        )
        accounting = "AccountingStorageType=accounting_storage/none"
        if self.accounting:
            accounting = (
                "AccountingStorageType=accounting_storage/slurmdbd\nAccountingStorageHost=127.0.0.1\n"
                f"AccountingStorageTRES=gres/gpu\nAccountingStoragePass={self.folder}/munge/socket\n"
                f"AccountingStoragePort={self.dbd_port}"
            )
        text = SLURM_CONF.format(
            **facts,
            ctld_port=self.ctld_port,
            slurmd_timeout_s=10,
            requeue_hold_s=REQUEUE_HOLD_S,
            accounting=accounting,
            nodes=nodes,
        )
        (self.folder / "slurm.conf").write_text(text)
        # Any character device can be counted out as a GPU.
        devices = [f"/dev/tty{index}" for index in range(gpus)]
        if not all(Path(device).exists() for device in devices):
            devices = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random"][:gpus]
        lines = [f"NodeName={node} Name=gpu File={','.join(devices)} AutoDetect=off" for node in NODES]
        (self.folder / "gres.conf").write_text("\n".join(lines) + "\n")
        dbd = self.folder / "slurmdbd.conf"
        dbd.write_text(SLURMDBD_CONF.format(**facts, dbd_port=self.dbd_port, db_port=self.db_port))
        dbd.chmod(0o600)

    def _write_wrappers(self) -> None:
        for client in CLIENTS:
            if client == "sacct" and not self.accounting:
                continue
            if real := find(client):
                text = {"sbatch": SBATCH, "srun": SRUN}.get(client, WRAPPER)
                file = self.folder / "bin" / client
                file.write_text(text.format(folder=self.folder, real=real))
                file.chmod(0o755)

    # Daemons.

    def _launch(self, name: str, *command: str) -> None:
        program = find(command[0])
        assert program, f"{command[0]} is not installed"
        with (self.folder / f"{name}.out").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [program, *command[1:]],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def start(self) -> None:
        munge = self.folder / "munge"
        (munge / "key").write_bytes(os.urandom(128))
        (munge / "key").chmod(0o400)
        files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        options = [f"--{option}={munge / name}" for option, name in files.items()]
        self._launch("munged", "munged", "--foreground", "--force", "--num-threads=2", *options)
        wait_for(lambda: (munge / "socket").exists(), "munged")
        if self.accounting:
            self._start_accounting()
        self.start_controller()
        for node in NODES:
            self.start_node(node)
        wait_for(lambda: all(self.node_state(node) == "idle" for node in NODES), "both nodes idle")

    def _start_accounting(self) -> None:
        data = self.folder / "db"
        install = find("mariadb-install-db")
        assert install
        subprocess.run(
            [install, "--no-defaults", f"--datadir={data}", f"--user={self.user}", "--skip-test-db"],
            env=self.environment,
            capture_output=True,
            check=True,
        )
        options = [f"--datadir={data}", f"--socket={data}/socket", f"--port={self.db_port}", f"--user={self.user}"]
        options += ["--bind-address=127.0.0.1", "--innodb-buffer-pool-size=64M", "--innodb-lock-wait-timeout=900"]
        script = data / "init.sql"
        script.write_text(
            "CREATE DATABASE slurm_acct; CREATE USER slurm@'127.0.0.1' IDENTIFIED BY 'slurm';"
            "CREATE USER slurm@localhost IDENTIFIED BY 'slurm'; GRANT ALL ON slurm_acct.* TO slurm@'127.0.0.1';"
            "GRANT ALL ON slurm_acct.* TO slurm@localhost;\n".replace(";", ";\n")
        )
        self._launch("mariadbd", "mariadbd", "--no-defaults", *options, f"--init-file={script}")
        wait_for(lambda: _listens(self.db_port), "the database")
        self._launch("slurmdbd", "slurmdbd", "-D")
        wait_for(lambda: _listens(self.dbd_port), "slurmdbd")
        self.call("sacctmgr", "-i", "add", "cluster", "private")
        self.call("sacctmgr", "-i", "add", "account", "city", "cluster=private")
        self.call("sacctmgr", "-i", "add", "user", self.user, "account=city")

    def start_controller(self) -> None:
        self._launch("slurmctld", "slurmctld", "-D", "-f", str(self.folder / "slurm.conf"))
        wait_for(self._controller_answers, "slurmctld")

    def _controller_answers(self) -> bool:
        if self.processes["slurmctld"].poll() is not None:
            raise RuntimeError(f"slurmctld ended: {(self.folder / 'slurmctld.log').read_text()[-500:]}")
        return self.call("scontrol", "ping", check=False).returncode == 0

    def stop_controller(self) -> None:
        self._end("slurmctld")

    def start_node(self, node: str) -> None:
        self._launch(node, "slurmd", "-D", "-N", node, "-f", str(self.folder / "slurm.conf"))

    def kill_node(self, node: str) -> None:
        """As when the power goes: the daemon and everything that runs on the node, at once."""
        daemon = self.processes.pop(node)
        daemon.kill()
        daemon.wait()
        on_it = [process for process in self.own_processes() if process.node == node]
        # First those that would report the death of the others; their own environment can't be read.
        for pid in {_parent(process.pid) for process in on_it}:
            if _program(pid).startswith("slurmstepd"):
                OwnProcess(pid, node).kill()
        for process in on_it:
            process.kill()

    def restore_node(self, node: str) -> None:
        self.start_node(node)
        wait_for(lambda: self.node_state(node) in ("idle", "mixed", "allocated"), f"{node} back")

    def _end(self, name: str, timeout_s: float = 10) -> None:
        process = self.processes.pop(name, None)
        if process is None:
            return
        process.terminate()
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def stop(self) -> None:
        if "slurmctld" in self.processes and self.processes["slurmctld"].poll() is None:
            self.call("scancel", f"--user={self.user}", check=False)
        for name in ("slurmctld", *NODES, "slurmdbd", "mariadbd", "munged"):
            self._end(name)
        for process in self.own_processes():
            process.kill()
        if not os.environ.get("CITYWEAVE_KEEP_CLUSTER"):
            shutil.rmtree(self.folder, ignore_errors=True)

    def own_processes(self) -> list[OwnProcess]:
        """Every process started for this cluster, and by its jobs: its environment names the cluster's folder."""
        found = []
        mark = f"SLURM_CONF={self.folder}/".encode()
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                environment = (folder / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            pid = int(folder.name)
            if pid != os.getpid() and any(each.startswith(mark) for each in environment):
                nodes = [each.split(b"=")[1].decode() for each in environment if each.startswith(b"SLURMD_NODENAME=")]
                found.append(OwnProcess(pid, nodes[-1] if nodes else None))
        return found

    # Questions.

    def call(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        result = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60, check=False)
        if check and result.returncode:
            raise RuntimeError(f"{' '.join(command)}: {result.stdout}{result.stderr}")
        return result

    def node_state(self, node: str) -> str:
        return self.call("sinfo", "-h", "-n", node, "-p", "cpu", "-o", "%t", check=False).stdout.strip()

    def jobs(self) -> list[dict[str, str]]:
        """What squeue knows, ended jobs of the last minutes included."""
        names = {"job_id": "%i", "state": "%T", "node": "%N", "comment": "%k", "name": "%j", "gres": "%b"}
        lines = self.call("squeue", "-h", "--states=all", "-o", "|".join(names.values())).stdout.splitlines()
        return [dict(zip(names, line.split("|"), strict=True)) for line in lines]

    def submitted(self) -> list[Submitted]:
        files = sorted((self.folder / "submitted").iterdir(), key=lambda file: int(file.name))
        return [Submitted(file.name, tuple(file.read_text().split("\0")[:-1])) for file in files]

    def started(self) -> list[Started]:
        file = self.folder / "started"
        lines = file.read_text().splitlines() if file.exists() else []
        rows = [line.split() for line in lines]
        return [Started(row[0], row[1], () if row[2] == "-" else tuple(row[2].split(","))) for row in rows]

    def forget(self) -> None:
        """Start counting jobs anew."""
        (self.folder / "started").unlink(missing_ok=True)
        for file in (self.folder / "submitted").iterdir():
            file.unlink()

    def diagnosis(self) -> str:
        """What helps when a test fails."""
        tails = [f"== {file.name}\n" + file.read_text()[-2000:] for file in sorted(self.folder.glob("*.log"))]
        return json.dumps(self.jobs(), indent=0) + "\n".join(tails)


@dataclass(frozen=True)
class OwnProcess:
    pid: int
    node: str | None

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


def _parent(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) for line in lines if line.startswith("PPid:"))


def _program(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/exe").readlink().name
    except OSError:
        return ""


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
