"""Several processes at once (make test-services): redis-server, Celery workers, replicas, and writers killed a hundred times."""
