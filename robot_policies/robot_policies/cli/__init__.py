"""The command line: one command, `robot-policies`, with one module per group of subcommands."""
