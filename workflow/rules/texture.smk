# A texture is made in one go, or goes back and forth: texture_0, novel_1, texture_1, novel_2, ... and at last texture.
ROUNDS = CONFIG.texture.refine.rounds


def texture_input(number):
    """Input function: what the texture after so many rounds of refinement is made from."""
    novel = around(novel_name(number), novel_rings(CONFIG)) if number else lambda wildcards: []

    def manifests(wildcards):
        return [
            tile_manifest("ingest", wildcards.tile),
            *around("mesh", texture_rings(CONFIG))(wildcards),
            city_manifest("survey"),
            *novel(wildcards),
        ]

    return manifests


def novel_input(number):
    """Input function: what a tile's novel views of a round show."""

    def manifests(wildcards):
        rings = rendered_rings(CONFIG)
        textures = around(texture_name(CONFIG, number - 1), rings)(wildcards)
        weights = CONFIG.texture.refine.weights
        return [*textures, *around("mesh", rings)(wildcards), *([str(weights)] if weights else [])]

    return manifests


for number in range(ROUNDS + 1):
    STEPS = [("texture", texture_name(CONFIG, number), texture_input(number))]
    if number:
        STEPS.insert(0, ("novel", novel_name(number), novel_input(number)))
    for command, manifest, wanted in STEPS:
        if PACK.tiles == 1:

            rule:
                name:
                    manifest
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
                threads: CONFIG.workflow.cores_per_tile
                resources:
                    **requested("texture"),
                params:
                    run=run_of,
                    command=command,
                    number=number,
                    config=params_of("texture"),
                    code=code_of("texture"),
                message:
                    f"{'Texturing' if command == 'texture' else 'Restoring views of'} {{wildcards.tile}}"
                shell:
                    "python -m cityweave {params.command} --run {params.run} --round {params.number} --cpus {threads} "
                    "--tile {wildcards.tile} > {log} 2>&1"

        else:
            for tiles in packs(PACK.tiles):

                rule:
                    name:
                        f"{manifest}_{tiles[0]}"
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
                    threads: CONFIG.workflow.cores_per_tile
                    resources:
                        **requested("texture"),
                    params:
                        tiles=tiles_of,
                        run=run_of,
                        command=command,
                        number=number,
                        config=params_of("texture"),
                        code=code_of("texture"),
                    message:
                        f"{'Texturing' if command == 'texture' else 'Restoring views of'} {tiles[0]} and {len(tiles) - 1} more"
                    shell:
                        "python -m cityweave {params.command} --run {params.run} --round {params.number} "
                        "--cpus {threads} {params.tiles} > {log} 2>&1"
