"""What lasts or is shared: the ports of core/ports.py on this machine. Importing this package loads nothing else."""
