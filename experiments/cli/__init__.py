"""Command line: flags, configurations, exit statuses and joining the processes of a run."""
