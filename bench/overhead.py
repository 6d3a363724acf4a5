"""How much of the time that jobs hold nodes on a SLURM cluster is start-up: python bench/overhead.py CONFIG FOLDER

Runs a city through `--profile slurm` as it is committed, packing included, on the private two-node cluster of the tests
(with accounting), and compares what SLURM counts for each job with the seconds that its stages worked. Held and not
worked are SLURM's prolog, Snakemake starting twice in each job, imports, and loading of compiled code. Needs an idle
machine: what else runs there stretches both.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.cluster.conftest import ClusterRun  # noqa: E402
from tests.cluster.private import PrivateCluster  # noqa: E402


def main() -> None:
    config, folder = Path(sys.argv[1]), Path(sys.argv[2])
    with PrivateCluster(accounting=True) as cluster:
        run = ClusterRun(cluster, folder, yaml.safe_load(config.read_text()))
        code, text = run.run("--slurm-status-command", "sacct", timeout_s=7200)
        if code:
            sys.exit(text[-3000:])
        lines = cluster.call("sacct", "-X", "-n", "-P", "-o", "JobID,ElapsedRaw").stdout.split()
        elapsed_s = {job: int(seconds) for job, seconds in (line.split("|") for line in lines)}
        jobs: dict[str, list[int]] = defaultdict(list)
        for each in cluster.submitted():
            jobs[each.rule.split("_E")[0]].append(elapsed_s[each.job_id])
    work: dict[str, float] = defaultdict(float)
    for file in run.city.rglob("*.run.json"):
        rule = "fit" if file.name.startswith("sdf_") else file.name.removesuffix(".run.json")
        work[rule] += json.loads(file.read_text())["work_s"]
    print("| rule | jobs | held s | worked s | start-up a job s |\n|---|---|---|---|---|")
    for rule, held in jobs.items():
        rest = (sum(held) - work[rule]) / len(held)
        print(f"| {rule} | {len(held)} | {sum(held)} | {work[rule]:.1f} | {rest:.1f} |")
    held_s, work_s = sum(map(sum, jobs.values())), sum(work.values())
    print(f"overhead_share {1 - work_s / held_s:.3f}: held {held_s} s, worked {work_s:.0f} s")


if __name__ == "__main__":
    main()
