"""Command-line interface: one module per command, and `app`, which all of them use."""
