if PACK.tiles == 1:

    rule ingest:
        """A tile's share of every source, with halo."""
        input:
            ingest_input,
        output:
            tile_manifest("ingest"),
        log:
            f"{RUN}/logs/ingest/{{tile}}.log",
        benchmark:
            f"{RUN}/benchmarks/ingest/{{tile}}.jsonl"
        conda:
            "../envs/cpu.yaml"
        threads: 1
        params:
            run=run_of,
            config=params_of("ingest"),
            code=code_of("ingest"),
        message:
            "Cutting {wildcards.tile}"
        shell:
            "python -m cityweave ingest --run {params.run} --tile {wildcards.tile} > {log} 2>&1"

else:

    for tiles in packs(PACK.tiles):

        rule:
            name:
                f"ingest_{tiles[0]}"
            input:
                gathered(ingest_input, tiles),
            output:
                [tile_manifest("ingest", tile) for tile in tiles],
            log:
                f"{RUN}/logs/ingest/{tiles[0]}.log",
            benchmark:
                f"{RUN}/benchmarks/ingest/{tiles[0]}.jsonl"
            conda:
                "../envs/cpu.yaml"
            threads: min(PACK.at_once, len(tiles))
            resources:
                **requested("ingest"),
            params:
                tiles=tiles_of,
                at_once=at_once_of,
                run=run_of,
                config=params_of("ingest"),
                code=code_of("ingest"),
            message:
                f"Cutting {tiles[0]} and {len(tiles) - 1} more"
            shell:
                "python -m cityweave ingest --run {params.run} --at-once {params.at_once} {params.tiles} > {log} 2>&1"
