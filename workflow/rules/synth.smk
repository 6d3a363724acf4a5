rule synth:
    """Sources and truth of a synthetic city."""
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
        config=params_of("synth"),
        code=code_of("synth"),
    message:
        "Building and photographing the synthetic city"
    shell:
        "{CITYWEAVE} synth --run {BASE} > {log} 2>&1"
