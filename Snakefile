"""cityweave: a city tile by tile. Paths and the tile list are in workflow/rules/common.smk, the science in src/."""

from snakemake.utils import min_version

min_version("9.20")


# A city's file replaces the demo's as a whole; merged, keys of the demo would leak into the city.
if not workflow.config_settings.configfiles:

    configfile: Path(workflow.basedir) / "config" / "config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/synth.smk"
include: "workflow/rules/survey.smk"
include: "workflow/rules/ingest.smk"
include: "workflow/rules/dsm.smk"
include: "workflow/rules/geometry.smk"
include: "workflow/rules/texture.smk"
include: "workflow/rules/merge.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/report.smk"


localrules:
    all,
    heights,
    verdict,


rule all:
    """The whole city. Names the manifests of all tiles, so that one that is gone is made again."""
    default_target: True
    input:
        [manifest for name in TILE_MANIFESTS for manifest in all_tiles(name)],
        city_manifest("report"),
        f"{RUN}/verdict.json",


rule heights:
    """The city's height model alone."""
    input:
        city_manifest("merge_heights"),


rule verdict:
    """Fails when a tile is quarantined or missing, after everything else is delivered."""
    input:
        city_manifest("report"),
    output:
        f"{RUN}/verdict.json",
    log:
        f"{RUN}/logs/verdict.log",
    conda:
        "workflow/envs/cpu.yaml"
    params:
        run=run_of,
    shell:
        "python -m cityweave verdict --run {params.run} --output {output} 2> >(tee {log} >&2)"
