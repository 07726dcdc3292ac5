"""Several processes at once, with real parts: redis-server, Celery workers, replicas (make test-services)."""
