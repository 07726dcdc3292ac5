"""The kernel's side of the JupyterLab extension: what it shows is read from the ledger and from the calls under way."""
