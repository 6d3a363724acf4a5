rule report:
    """One page with pictures, plots and the state of every tile."""
    input:
        city_manifest("evaluate"),
        city_manifest("merge_city"),
        city_manifest("survey"),
    output:
        city_manifest("report"),
    log:
        f"{RUN}/logs/report.log",
    benchmark:
        f"{RUN}/benchmarks/report.jsonl"
    conda:
        "../envs/cpu.yaml"
    threads: 1
    params:
        run=run_of,
        config=params_of("report"),
        code=code_of("report"),
    message:
        "Writing the report"
    shell:
        "python -m cityweave report --run {params.run} > {log} 2>&1"
