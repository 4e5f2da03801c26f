"""Has a compiled file that says something else."""

VALUE = "one"
