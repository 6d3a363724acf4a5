from pathlib import Path

from cityweave.operations.leftovers import left_jobs


def test_only_jobs_of_the_workflow_in_this_folder_are_left_ones() -> None:
    queue = "7|cityweave_1-2|/data/city\n8|other|/data/city\n9|cityweave_1-2|/data/town\n10|cityweave_3|/data/city\n"
    assert left_jobs(queue, Path("/data/city")) == ["7", "10"]
    assert left_jobs("", Path("/data/city")) == []
