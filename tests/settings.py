"""Settings of the test suite: the real ones, with a data directory that is thrown away."""

import atexit
import os
import shutil
import tempfile

_data_dir = tempfile.mkdtemp(prefix="ota-tests-")
atexit.register(shutil.rmtree, _data_dir, ignore_errors=True)
os.environ["OTA_DATA_DIR"] = _data_dir
os.environ.setdefault("OTA_PUBLIC_URL", "http://ota.example")

from otaplatform.settings import *  # noqa: E402, F403
from otaplatform.settings import CACHES, CHANNEL_LAYERS, DATABASES, OTA_DATA_DIR  # noqa: E402

# A slow hash protects stored passwords; the suite has none worth protecting.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
if not os.environ.get("REDIS_URL"):
    CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
else:
    # Workers of one run share the server but no database of it: emptying a cache empties the database.
    _server, _, _number = os.environ["REDIS_URL"].rpartition("/")
    _worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    REDIS_URL = f"{_server}/{(int(_number) - _worker) % 16}"
    CACHES["default"]["LOCATION"] = REDIS_URL
    CHANNEL_LAYERS["default"]["CONFIG"]["hosts"][0]["address"] = REDIS_URL
CELERY_TASK_ALWAYS_EAGER = False
CELERY_BROKER_URL = os.environ.get("REDIS_URL", "memory://")
if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    # A file, because the browser's server thread and gateway threads open connections of their own.
    DATABASES["default"]["TEST"] = {"NAME": str(OTA_DATA_DIR / "test.sqlite3")}
ALLOWED_HOSTS = ["*"]
WHITENOISE_AUTOREFRESH = True
