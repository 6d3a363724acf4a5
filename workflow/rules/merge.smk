# Workers on other nodes bring their own processors. Snakemake lowers it to its cores; no product depends on it.
MERGE_THREADS = local_workers(CONFIG.merge, len(TILES)) if CONFIG.merge.cluster == "local" else 1


rule merge_heights:
    """City height model from the tiles' cores."""
    input:
        city_manifest("survey"),
        all_tiles("dsm"),
    output:
        city_manifest("merge_heights"),
    log:
        f"{RUN}/logs/merge_heights.log",
    benchmark:
        f"{RUN}/benchmarks/merge_heights.jsonl"
    conda:
        "../envs/cpu.yaml"
    threads: MERGE_THREADS
    params:
        run=run_of,
        config=params_of("merge"),
        code=code_of("merge"),
    message:
        "Merging the height model"
    shell:
        "python -m cityweave merge-heights --run {params.run} --cpus {threads} > {log} 2>&1"


rule merge_city:
    """3D Tiles, overview and index."""
    input:
        city_manifest("survey"),
        all_tiles("mesh"),
        all_tiles("texture"),
    output:
        city_manifest("merge_city"),
    log:
        f"{RUN}/logs/merge_city.log",
    benchmark:
        f"{RUN}/benchmarks/merge_city.jsonl"
    conda:
        "../envs/cpu.yaml"
    threads: MERGE_THREADS
    params:
        run=run_of,
        config=params_of("merge"),
        code=code_of("merge"),
    message:
        "Merging the 3D city"
    shell:
        "python -m cityweave merge-city --run {params.run} --cpus {threads} > {log} 2>&1"
