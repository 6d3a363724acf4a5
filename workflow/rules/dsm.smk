if PACK.tiles == 1:

    rule dsm:
        """Heights of a tile from its views."""
        input:
            dsm_input,
        output:
            tile_manifest("dsm"),
        log:
            f"{RUN}/logs/dsm/{{tile}}.log",
        benchmark:
            f"{RUN}/benchmarks/dsm/{{tile}}.jsonl"
        conda:
            "../envs/cpu.yaml"
        threads: CONFIG.workflow.cores_per_tile
        params:
            run=run_of,
            config=params_of("dsm"),
            code=code_of("dsm"),
        message:
            "Measuring heights of {wildcards.tile}"
        shell:
            "python -m cityweave dsm --run {params.run} --cpus {threads} --tile {wildcards.tile} > {log} 2>&1"

else:

    for tiles in packs(PACK.tiles):

        rule:
            name:
                f"dsm_{tiles[0]}"
            input:
                gathered(dsm_input, tiles),
            output:
                [tile_manifest("dsm", tile) for tile in tiles],
            log:
                f"{RUN}/logs/dsm/{tiles[0]}.log",
            benchmark:
                f"{RUN}/benchmarks/dsm/{tiles[0]}.jsonl"
            conda:
                "../envs/cpu.yaml"
            threads: CONFIG.workflow.cores_per_tile * min(PACK.at_once, len(tiles))
            resources:
                **requested("dsm"),
            params:
                tiles=tiles_of,
                at_once=at_once_of,
                run=run_of,
                config=params_of("dsm"),
                code=code_of("dsm"),
            message:
                f"Measuring heights of {tiles[0]} and {len(tiles) - 1} more"
            shell:
                "python -m cityweave dsm --run {params.run} --cpus {threads} --at-once {params.at_once} {params.tiles} "
                "> {log} 2>&1"
