rule survey:
    """What the sources are: footprints, checksums, statistics, heights to expect."""
    input:
        SOURCE_INPUT,
    output:
        city_manifest("survey"),
    log:
        f"{RUN}/logs/survey.log",
    benchmark:
        f"{RUN}/benchmarks/survey.jsonl"
    conda:
        "../envs/cpu.yaml"
    threads: 2
    params:
        run=run_of,
        config=params_of("survey"),
        code=code_of("survey"),
    message:
        "Surveying the sources"
    shell:
        "python -m cityweave survey --run {params.run} --cpus {threads} > {log} 2>&1"
