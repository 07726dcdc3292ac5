"""Several processes at once, with real parts: redis-server, Celery workers, replicas, writers killed by the hundred (make test-services)."""
