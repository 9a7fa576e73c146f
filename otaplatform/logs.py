"""What stays out of the log."""

import logging


class NotHealth(logging.Filter):
    """Drops the record that Django writes for each 503 of /healthz: the answer itself says it."""

    def filter(self, record: logging.LogRecord) -> bool:
        path = getattr(getattr(record, "request", None), "path", "")
        return path != "/healthz" or bool(record.exc_info)
