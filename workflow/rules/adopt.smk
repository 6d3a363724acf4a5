from cityweave.adopt import adopted_manifests
from cityweave.manifest import Run

OTHER = CONFIG.workflow.adopt.run
TAKEN = [str(path) for _, path in adopted_manifests(Run(Path(RUN), CONFIG), ADOPTED)]


rule adopt:
    """Results of another run, by hard link."""
    input:
        [str(OTHER.parent / Path(manifest).relative_to(Path(RUN).parent)) for manifest in TAKEN],
    output:
        TAKEN,
    log:
        f"{RUN}/logs/adopt.log",
    localrule: True
    conda:
        "../envs/cpu.yaml"
    params:
        run=run_of,
    message:
        f"Taking {', '.join(ADOPTED)} over from {OTHER}"
    shell:
        "python -m cityweave adopt --run {params.run} > {log} 2>&1"
