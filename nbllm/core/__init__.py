"""Decisions, pure: no clock, no randomness, no network, no disk, no Jupyter. Callers pass now_s, jitter and prices."""
