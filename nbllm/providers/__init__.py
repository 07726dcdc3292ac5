"""The outside world: one file for each way to reach a model; the only files that know a wire format.

pool.Providers hands out providers, catalog.Catalog turns a model id into a rung, discovery.discover looks for a default model.
Importing this package loads none of them.
"""
