"""One city: what is asked of it, from the rules of its stages."""

# A city's file replaces the demo's as a whole; merged, keys of the demo would leak into the city.
if not workflow.config_settings.configfiles:

    configfile: Path(workflow.basedir) / "config" / "config.yaml"


include: "common.smk"


# Stages that are taken over from another run have no rules of their own.
for stage in ("synth", "survey", "ingest", "cityscale", "dsm", "geometry", "texture", "merge", "evaluate", "report"):
    if stage not in ADOPTED:

        include: f"{stage}.smk"


if ADOPTED:

    include: "adopt.smk"


rule all:
    """The whole city. Names the manifests of all tiles, so that one that is gone is made again."""
    input:
        [manifest for name in tile_manifests(CONFIG) for manifest in all_tiles(name)],
        city_manifest("report"),
        f"{RUN}/verdict.json",
    localrule: True


rule heights:
    """The city's height model alone."""
    input:
        city_manifest("merge_heights"),
    localrule: True


rule verdict:
    """Fails when a tile is quarantined or missing, after everything else is delivered."""
    input:
        city_manifest("report"),
    output:
        f"{RUN}/verdict.json",
    log:
        f"{RUN}/logs/verdict.log",
    localrule: True
    conda:
        "../envs/cpu.yaml"
    params:
        run=run_of,
    shell:
        "python -m cityweave verdict --run {params.run} --output {output} 2> >(tee {log} >&2)"


rule bench:
    """Benchmark suites are asked for by name; this only says so."""
    log:
        f"{RUN}/logs/bench.log",
    localrule: True
    conda:
        "../envs/cpu.yaml"
    params:
        suites=", ".join(sorted(file.stem for file in (Path(workflow.basedir) / "config" / "bench").glob("*.yaml"))),
    shell:
        "echo 'Which suite? snakemake bench --config suite=NAME; there are: {params.suites}' 2>&1 | tee {log} >&2; exit 2"
