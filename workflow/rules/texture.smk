if PACK.tiles == 1:

    rule texture:
        """The atlas of a tile, baked from its views behind the meshes around it."""
        input:
            texture_input,
        output:
            tile_manifest("texture"),
        log:
            f"{RUN}/logs/texture/{{tile}}.log",
        benchmark:
            f"{RUN}/benchmarks/texture/{{tile}}.jsonl"
        conda:
            "../envs/cpu.yaml"
        threads: 1
        params:
            run=run_of,
            config=params_of("texture"),
            code=code_of("texture"),
        message:
            "Texturing {wildcards.tile}"
        shell:
            "python -m cityweave texture --run {params.run} --tile {wildcards.tile} > {log} 2>&1"

else:

    for tiles in packs(PACK.tiles):

        rule:
            name:
                f"texture_{tiles[0]}"
            input:
                gathered(texture_input, tiles),
            output:
                [tile_manifest("texture", tile) for tile in tiles],
            log:
                f"{RUN}/logs/texture/{tiles[0]}.log",
            benchmark:
                f"{RUN}/benchmarks/texture/{tiles[0]}.jsonl"
            conda:
                "../envs/cpu.yaml"
            threads: 1
            resources:
                **requested("texture"),
            params:
                tiles=tiles_of,
                run=run_of,
                config=params_of("texture"),
                code=code_of("texture"),
            message:
                f"Texturing {tiles[0]} and {len(tiles) - 1} more"
            shell:
                "python -m cityweave texture --run {params.run} {params.tiles} > {log} 2>&1"
