rule evaluate:
    """Every figure, against reference where there is one."""
    input:
        city_manifest("merge_heights"),
        city_manifest("merge_city"),
        SOURCE_INPUT,
    output:
        city_manifest("evaluate"),
    log:
        f"{RUN}/logs/evaluate.log",
    benchmark:
        f"{RUN}/benchmarks/evaluate.jsonl"
    conda:
        "../envs/cpu.yaml"
    threads: 1
    params:
        run=run_of,
        config=params_of("evaluate"),
        code=code_of("evaluate"),
    message:
        "Measuring the city"
    shell:
        "python -m cityweave evaluate --run {params.run} > {log} 2>&1"
