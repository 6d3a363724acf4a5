if not PACK.divisions:

    rule fit_division:
        """Fit the field of one division."""
        input:
            fit_input,
        output:
            tile_manifest("sdf_{division}"),
        log:
            f"{RUN}/logs/fit/{{tile}}_{{division}}.log",
        benchmark:
            f"{RUN}/benchmarks/fit/{{tile}}_{{division}}.jsonl"
        conda:
            "../envs/cpu.yaml"
        threads: 1
        params:
            run=run_of,
            config=params_of("geometry"),
            code=code_of("geometry"),
        message:
            "Fitting division {wildcards.division} of {wildcards.tile}"
        shell:
            "python -m cityweave fit --run {params.run} --tile {wildcards.tile} --division {wildcards.division} > {log} 2>&1"

elif PACK.tiles == 1:

    rule fit:
        """Fit the field of a tile's four divisions."""
        input:
            fit_input,
        output:
            [tile_manifest(f"sdf_{division}") for division in DIVISIONS],
        log:
            f"{RUN}/logs/fit/{{tile}}.log",
        benchmark:
            f"{RUN}/benchmarks/fit/{{tile}}.jsonl"
        conda:
            "../envs/cpu.yaml"
        threads: 1
        params:
            divisions=divisions_of,
            run=run_of,
            config=params_of("geometry"),
            code=code_of("geometry"),
        message:
            "Fitting {wildcards.tile}"
        shell:
            "python -m cityweave fit --run {params.run} --tile {wildcards.tile} {params.divisions} > {log} 2>&1"

else:

    for tiles in packs(PACK.tiles):

        rule:
            name:
                f"fit_{tiles[0]}"
            input:
                gathered(fit_input, tiles),
            output:
                [tile_manifest(f"sdf_{division}", tile) for tile in tiles for division in DIVISIONS],
            log:
                f"{RUN}/logs/fit/{tiles[0]}.log",
            benchmark:
                f"{RUN}/benchmarks/fit/{tiles[0]}.jsonl"
            conda:
                "../envs/cpu.yaml"
            threads: 1
            resources:
                **requested("fit"),
            params:
                divisions=divisions_of,
                tiles=tiles_of,
                run=run_of,
                config=params_of("geometry"),
                code=code_of("geometry"),
            message:
                f"Fitting {tiles[0]} and {len(tiles) - 1} more"
            shell:
                "python -m cityweave fit --run {params.run} {params.tiles} {params.divisions} > {log} 2>&1"


if PACK.tiles == 1:

    rule mesh:
        """A tile's mesh from its own divisions and its neighbours'."""
        input:
            mesh_input,
        output:
            tile_manifest("mesh"),
        log:
            f"{RUN}/logs/mesh/{{tile}}.log",
        benchmark:
            f"{RUN}/benchmarks/mesh/{{tile}}.jsonl"
        conda:
            "../envs/cpu.yaml"
        threads: 1
        params:
            run=run_of,
            config=params_of("geometry"),
            code=code_of("geometry"),
        message:
            "Meshing {wildcards.tile}"
        shell:
            "python -m cityweave mesh --run {params.run} --tile {wildcards.tile} > {log} 2>&1"

else:

    for tiles in packs(PACK.tiles):

        rule:
            name:
                f"mesh_{tiles[0]}"
            input:
                gathered(mesh_input, tiles),
            output:
                [tile_manifest("mesh", tile) for tile in tiles],
            log:
                f"{RUN}/logs/mesh/{tiles[0]}.log",
            benchmark:
                f"{RUN}/benchmarks/mesh/{tiles[0]}.jsonl"
            conda:
                "../envs/cpu.yaml"
            threads: 1
            resources:
                **requested("mesh"),
            params:
                tiles=tiles_of,
                run=run_of,
                config=params_of("geometry"),
                code=code_of("geometry"),
            message:
                f"Meshing {tiles[0]} and {len(tiles) - 1} more"
            shell:
                "python -m cityweave mesh --run {params.run} {params.tiles} > {log} 2>&1"
