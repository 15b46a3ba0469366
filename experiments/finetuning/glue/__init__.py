"""All of GLUE in one command: its jobs, their checks, results and the report."""
