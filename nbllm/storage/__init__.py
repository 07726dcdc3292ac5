"""What lasts or is shared: the ports of core/ports on this machine. Importing this package loads nothing else."""
