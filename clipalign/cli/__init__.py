"""The command line: one short module a command; `clipalign.cli.app` ties them together."""
