"""A small Celery fleet whose tasks end in every way that a task can end."""
