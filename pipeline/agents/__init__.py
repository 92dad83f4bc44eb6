"""Queues of submitted runs, and the agents that execute them."""
