"""How fast the queue is, and what queue and scheduler lose."""

JOBS = 2000
