"""Small servers that break one clause, which the command line names; without a name, they keep it."""
