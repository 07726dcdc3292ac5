"""The road of one request, one stage a file, in the order in which road.py assembles them."""
