"""One file a command: `command` is what runs; `ambdiff.cli.entry.COMMANDS` lists them."""
