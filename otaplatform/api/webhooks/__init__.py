"""Telling other systems of events: `services` keeps the addresses, `collect` queues, `send` delivers."""
