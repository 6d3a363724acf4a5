# Heights above ground of the windows that a tile owns, from the orthophoto; only where the height model asks for them.
if CONFIG.dsm.method != "stereo":
    if PACK.tiles == 1:

        rule cityscale:
            """Heights above ground from one picture, window by window."""
            input:
                cityscale_input,
            output:
                tile_manifest("cityscale"),
            log:
                f"{RUN}/logs/cityscale/{{tile}}.log",
            benchmark:
                f"{RUN}/benchmarks/cityscale/{{tile}}.jsonl"
            conda:
                "../envs/models.yaml"
            threads: 1
            params:
                run=run_of,
                config=params_of("cityscale"),
                code=code_of("cityscale"),
            message:
                "Predicting heights of {wildcards.tile}"
            shell:
                "python -m cityweave cityscale --run {params.run} --tile {wildcards.tile} > {log} 2>&1"

    else:
        for tiles in packs(PACK.tiles):

            rule:
                name:
                    f"cityscale_{tiles[0]}"
                input:
                    gathered(cityscale_input, tiles),
                output:
                    [tile_manifest("cityscale", tile) for tile in tiles],
                log:
                    f"{RUN}/logs/cityscale/{tiles[0]}.log",
                benchmark:
                    f"{RUN}/benchmarks/cityscale/{tiles[0]}.jsonl"
                conda:
                    "../envs/models.yaml"
                threads: 1
                resources:
                    **requested("cityscale"),
                params:
                    tiles=tiles_of,
                    run=run_of,
                    config=params_of("cityscale"),
                    code=code_of("cityscale"),
                message:
                    f"Predicting heights of {tiles[0]} and {len(tiles) - 1} more"
                shell:
                    "python -m cityweave cityscale --run {params.run} {params.tiles} > {log} 2>&1"
