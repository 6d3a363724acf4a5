"""cityweave: a city tile by tile. Paths and the tile list are in workflow/rules/common.smk, the science in src/."""

from snakemake.utils import min_version

min_version("9.20")


include: "workflow/rules/start.smk"


if "suite" in config:

    include: "workflow/rules/bench.smk"

    workflow.default_target = "bench"

else:

    include: "workflow/rules/city.smk"

    workflow.default_target = "all"
