"""All that is measured on a GPU, in calls of a few minutes: `python -m benchmarks.gpu [FOLDER]`.

    --plan          print what would be measured in which call, and how long it takes
    --minutes 6     what a call may take
    --parts step    some of the parts only (`parts.py`)
    --pack FILE     leave an archive of FOLDER after every part
    --tables        only write the tables, from the rows that are there

FOLDER is benchmarks/results/<device>. Every row is added to its rows.jsonl when it is measured
(`rows.py`), README.md has them as tables (`tables.py`), logs/ what the parts printed, and runs/,
reproduction/ and accuracy/ the trainings. What is due, and its order: `schedule.py`. A call that is
killed loses nothing but the row that it was measuring, and the same command goes on. A row is
measured once at a commit (outside a checkout, that of GIT_COMMIT): to have it again, take it out of
rows.jsonl.

For a machine without network `make bundle` leaves a folder, in which `bash run.sh FOLDER` and the
arguments above do the same. What it packed belongs into benchmarks/results, for the next bundle.
`bash run.sh FOLDER -- COMMAND` runs any other command there, with its packages and images.

`mnist-bench reproduce --no-train --runs FOLDER/reproduction` makes evidence of the published
trainings.
"""
