"""A benchmark suite: every (variant, seed) is a city's workflow as a module, its rules under the run's name.

Whatever the configuration holds beside `suite` is laid over every run of it.
"""

from cityweave.bench.source import source_state
from cityweave.bench.suite import read_suite
from cityweave.codehash import stage_hash
from cityweave.plan import STAGE_SECTIONS, canonical_json

try:
    OVER = {key: value for key, value in config.items() if key != "suite"}
    SUITE = read_suite(config["suite"], Path(workflow.basedir) / "config" / "bench", OVER)
    SOURCE = source_state()
except CityweaveError as error:
    refuse(error)

LAST = "report" if SUITE.plan.report else "evaluate"
RECORDS = {bench_run.name: f"{SUITE.folder}/records/{bench_run.name}.json" for bench_run in SUITE.runs}
# What a run must have at its end: named, since an input that is gone isn't made again for an output that is there.
ENDS = {each.name: (f"{each.folder}/city/{LAST}.json", RECORDS[each.name]) for each in SUITE.runs}

for bench_run in SUITE.runs:
    module_name = bench_run.rule_prefix
    prefix = f"{module_name}_"

    module:
        name: module_name
        snakefile:
            "../../Snakefile"
        config:
            bench_run.values

    use rule * from module_name as prefix*

    rule:
        name:
            f"{prefix}measure"
        input:
            f"{bench_run.folder}/city/{LAST}.json",
            [f"{bench_run.adopts.folder}/timing.json"] if bench_run.adopts else [],
        output:
            timing=f"{bench_run.folder}/timing.json",
        log:
            f"{bench_run.folder}/logs/measure.log",
        conda:
            "../envs/cpu.yaml"
        # All cores that there are, so that nothing else runs beside what is timed.
        threads: workflow.cores or 1
        params:
            run=lambda wildcards, output: str(Path(output.timing).parent),
            suite=str(SUITE.file),
            name=bench_run.name,
            how=canonical_json([SUITE.plan.timing.model_dump(), SUITE.plan.variants[bench_run.variant].at_once]),
            code=" ".join(stage_hash(stage) for stage in STAGE_SECTIONS),
        message:
            f"Timing {bench_run.name}"
        shell:
            "python -m cityweave bench measure --suite {params.suite} --run {params.run} {params.name}"
            " --output {output} > {log} 2>&1"

    rule:
        name:
            f"{prefix}record"
        input:
            f"{bench_run.folder}/city/{LAST}.json",
            suite=str(SUITE.file),
            timing=f"{bench_run.folder}/timing.json",
        output:
            RECORDS[bench_run.name],
        log:
            f"{bench_run.folder}/logs/record.log",
        localrule: True
        conda:
            "../envs/cpu.yaml"
        params:
            run=lambda wildcards, input: str(Path(input.timing).parent),
            name=bench_run.name,
            source=canonical_json(SOURCE),
        shell:
            "python -m cityweave bench record --suite {input.suite} --run {params.run} {params.name}"
            " --output {output} > {log} 2>&1"


# A profile's requests go by the rules' plain names.
for name, asked in workflow.resource_settings._parsed_overwrite_resources.items():
    for prefix in [f"{bench_run.rule_prefix}_" for bench_run in SUITE.runs]:
        if workflow.is_rule(f"{prefix}{name}"):
            workflow.get_rule(f"{prefix}{name}").resources.update(asked)


# One variant, or one seed, alone: snakemake bench_{variant} and snakemake bench_s{seed}.
for part in dict.fromkeys(part for bench_run in SUITE.runs for part in (bench_run.variant, f"s{bench_run.seed}")):

    rule:
        name:
            f"bench_{part}"
        input:
            [file for each in SUITE.runs if part in (each.variant, f"s{each.seed}") for file in ENDS[each.name]],
        localrule: True


rule bench:
    """All records of the suite, and the tables and plots made from them."""
    input:
        [file for files in ENDS.values() for file in files],
        f"{SUITE.folder}/tables.md",
    localrule: True


rule bench_tables:
    input:
        RECORDS.values(),
    output:
        f"{SUITE.folder}/tables.md",
    log:
        f"{SUITE.folder}/tables.log",
    localrule: True
    conda:
        "../envs/cpu.yaml"
    shell:
        "python -m cityweave bench tables {input} --output {output} 2>&1 | tee {log}"
