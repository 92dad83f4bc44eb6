"""How Luigi runs us: command line, worker, processes and luigid."""
