"""Device reports in: from the broker's messages to the database."""
