"""Small servers that keep the clauses which their faults break, but for the fault that the command line names."""
