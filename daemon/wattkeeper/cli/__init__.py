"""The command ``wattkeeper``: one file a subcommand, imported when it is called."""

HELP = {"help_option_names": ["-h", "--help"]}
"""Context settings of every command, so that it reads the same when it is called by itself."""
