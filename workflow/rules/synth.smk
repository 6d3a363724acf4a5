rule synth:
    """Sources and truth of a synthetic city."""
    input:
        [str(CONFIG.synth.model)] if CONFIG.synth and CONFIG.synth.model else [],
    output:
        city_manifest("synth", BASE),
    log:
        f"{BASE}/logs/synth.log",
    benchmark:
        f"{BASE}/benchmarks/synth.jsonl"
    conda:
        "../envs/cpu.yaml"
    threads: 2
    params:
        run=run_of,
        config=params_of("synth"),
        code=code_of("synth"),
    message:
        "Building and photographing the synthetic city"
    shell:
        "python -m cityweave synth --run {params.run} > {log} 2>&1"
