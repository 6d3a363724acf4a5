# Heights are measured, or predicted, or both: then what is measured is a job of its own.
MEASURING = CONFIG.workflow.cores_per_tile
if CONFIG.dsm.method == "stereo":
    HEIGHTS = [("dsm", "dsm", "dsm", measure_input, MEASURING, "Measuring heights of")]
else:
    HEIGHTS = [("fuse", "dsm", "dsm", predict_input, 1, "Putting heights together of")]
if CONFIG.dsm.method == "fused":
    HEIGHTS.insert(0, ("stereo", "stereo", "stereo", measure_input, MEASURING, "Measuring heights of"))

for rule_name, command, manifest, wanted, cores, doing in HEIGHTS:
    if PACK.tiles == 1:

        rule:
            name:
                rule_name
            input:
                wanted,
            output:
                tile_manifest(manifest),
            log:
                f"{RUN}/logs/{manifest}/{{tile}}.log",
            benchmark:
                f"{RUN}/benchmarks/{manifest}/{{tile}}.jsonl"
            conda:
                "../envs/cpu.yaml"
            threads: cores
            params:
                command=command,
                run=run_of,
                config=params_of("dsm"),
                code=code_of("dsm"),
            message:
                f"{doing} {{wildcards.tile}}"
            shell:
                "python -m cityweave {params.command} --run {params.run} --cpus {threads} --tile {wildcards.tile} "
                "> {log} 2>&1"

    else:
        for tiles in packs(PACK.tiles):

            rule:
                name:
                    f"{rule_name}_{tiles[0]}"
                input:
                    gathered(wanted, tiles),
                output:
                    [tile_manifest(manifest, tile) for tile in tiles],
                log:
                    f"{RUN}/logs/{manifest}/{tiles[0]}.log",
                benchmark:
                    f"{RUN}/benchmarks/{manifest}/{tiles[0]}.jsonl"
                conda:
                    "../envs/cpu.yaml"
                threads: cores * min(PACK.at_once, len(tiles))
                resources:
                    **requested(rule_name),
                params:
                    command=command,
                    tiles=tiles_of,
                    at_once=at_once_of,
                    run=run_of,
                    config=params_of("dsm"),
                    code=code_of("dsm"),
                message:
                    f"{doing} {tiles[0]} and {len(tiles) - 1} more"
                shell:
                    "python -m cityweave {params.command} --run {params.run} --cpus {threads} "
                    "--at-once {params.at_once} {params.tiles} > {log} 2>&1"
