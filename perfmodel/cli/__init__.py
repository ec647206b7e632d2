"""What the command line can do: a module per kind of command, imported when it is called."""
