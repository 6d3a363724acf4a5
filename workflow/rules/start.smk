"""What a city's workflow and a suite of them share: the interpreter of the jobs, and how errors end a run."""

import os
import sys

from snakemake.logging import logger

from cityweave.errors import CityweaveError

# The interpreter that runs Snakemake runs the jobs, unless a software environment brings its own.
if not workflow.deployment_settings.deployment_method:
    shell.prefix(f"export PATH={Path(sys.executable).parent}:$PATH; ")
else:
    shell.prefix(f"export PYTHONPATH={workflow.basedir}/src; ")

# The image for --sdm apptainer, built from workflow/envs/cityweave.def.
if image := os.environ.get("CITYWEAVE_IMAGE"):

    container: image


# Snakemake has imported it by now, where it is installed.
if workflow.is_main_process and (slurm_plugin := sys.modules.get("snakemake_executor_plugin_slurm")):
    from cityweave.operations.slurm_plugin import ignore_unknown_nodes

    ignore_unknown_nodes(slurm_plugin.Executor)


def refuse(error):
    """One clear line instead of a traceback, and the exit code that the kind of error has."""
    logger.error(f"{type(error).__name__}: {error}")
    sys.exit(error.exit_code)


onstart:
    if workflow.is_main_process and workflow.non_local_exec:
        from cityweave.operations.leftovers import refuse_leftovers

        try:
            refuse_leftovers(Path.cwd())
        except CityweaveError as error:
            refuse(error)
