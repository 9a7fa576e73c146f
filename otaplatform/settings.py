"""All settings, read from the environment. Wrong combinations are reported by `otaplatform.checks`."""

import os
import secrets
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import django_stubs_ext
import environ
from cryptography.fernet import Fernet
from csp.constants import NONE, SELF

from otaplatform.core.private_files import UMASK, close_data_directory
from otaplatform.database import postgresql_options
from otaplatform.env import port, truth, whole_number
from otaplatform.keys import read_or_create
from otaplatform.redis_server import socket_path

# Generic Django classes (ModelAdmin[Device], QuerySet[Task]) take their parameter at run time too.
django_stubs_ext.monkeypatch()

BASE_DIR = Path(__file__).resolve().parent.parent
env = environ.Env()

OTA_DATA_DIR = Path(env.str("OTA_DATA_DIR", default=str(BASE_DIR / "var"))).resolve()
KEYS_DIR = OTA_DATA_DIR / "keys"
# Every part and every command reads this module first: what they create, nobody else on the machine reads.
os.umask(UMASK)
close_data_directory(OTA_DATA_DIR)

DEBUG = truth("OTA_DEBUG")
SECRET_KEY = env.str("OTA_SECRET_KEY", default="") or read_or_create(
    KEYS_DIR / "secret_key", lambda: secrets.token_urlsafe(50)
)
# Newest first; older keys still decrypt. `manage.py rotate_secrets` re-encrypts under the first.
OTA_ENCRYPTION_KEYS: list[str] = env.list("OTA_ENCRYPTION_KEYS", default=[]) or read_or_create(
    KEYS_DIR / "encryption_key", lambda: Fernet.generate_key().decode()
).split(",")

# ---- where we are reached ----------------------------------------------------------------------------
OTA_BIND = env.str("OTA_BIND", default="127.0.0.1")
OTA_HTTP_PORT = port("OTA_HTTP_PORT", 8000)
OTA_MQTT_PORT = port("OTA_MQTT_PORT", 1883)
# Answers downloads too, for C SDKs that cannot use an address with a port. 0 is none.
OTA_DOWNLOAD_PORT = port("OTA_DOWNLOAD_PORT", 80)
# Of one address at the same time; 0 is no limit. Behind a proxy it counts.
OTA_HTTP_CONNECTIONS_PER_ADDRESS = whole_number("OTA_HTTP_CONNECTIONS_PER_ADDRESS", 512)
OTA_PUBLIC_URL = env.str("OTA_PUBLIC_URL", default=f"http://127.0.0.1:{OTA_HTTP_PORT}").rstrip("/")
# What download links begin with: the same, unless `manage.py up` or you find an address without a port.
OTA_DOWNLOAD_URL = env.str("OTA_DOWNLOAD_URL", default="").rstrip("/") or OTA_PUBLIC_URL
_public_host = environ.urlparse(OTA_PUBLIC_URL).hostname or "127.0.0.1"
ALLOWED_HOSTS = env.list("OTA_ALLOWED_HOSTS", default=[]) or ["127.0.0.1", "localhost", "[::1]", _public_host]
CSRF_TRUSTED_ORIGINS = [OTA_PUBLIC_URL]
_https = OTA_PUBLIC_URL.startswith("https://")
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = _https
SESSION_COOKIE_HTTPONLY = True
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if truth("OTA_BEHIND_PROXY") else None
# Browsers keep to HTTPS for this long after a visit; only for an address that will always have it.
SECURE_HSTS_SECONDS = whole_number("OTA_HSTS_SECONDS", 0)
SECURE_SSL_REDIRECT = truth("OTA_SSL_REDIRECT")
# Devices do not follow redirects, and a monitor may ask from inside.
SECURE_REDIRECT_EXEMPT = [r"^f/", r"^auth$", r"^topic/", r"^healthz$"]
# Subdomains are not ours to promise HTTPS for (W005), nor to enter in browsers' lists (W021).
SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W021"]
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"

# ---- applications ------------------------------------------------------------------------------------
INSTALLED_APPS = [
    "otaplatform.apps.ConsoleAdminConfig",
    # Before Django's, whose command changepassword it replaces.
    "otaplatform.accounts",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "channels",
    "csp",
    "django_celery_beat",
    "rest_framework",
    "knox",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "devices",
    "firmware",
    "campaigns",
    "otaplatform.api",
    "otaplatform.apps.PlatformConfig",
]
MIDDLEWARE = [
    # First: nothing of what follows may reach a device.
    "otaplatform.device_http.middleware.device_requests",
    "django.middleware.security.SecurityMiddleware",
    "csp.middleware.CSPMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "otaplatform.accounts.middleware.preferences",
    "otaplatform.accounts.middleware.password_first",
]
CSRF_FAILURE_VIEW = "otaplatform.views.csrf_failure"
ROOT_URLCONF = "otaplatform.urls"
ASGI_APPLICATION = "otaplatform.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "django.template.context_processors.i18n",
                "django.template.context_processors.tz",
                "otaplatform.console.context",
            ],
        },
    }
]
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [SELF],
        "img-src": [SELF, "data:"],
        "object-src": [NONE],
        "base-uri": [SELF],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
    }
}

# ---- data --------------------------------------------------------------------------------------------
DATABASES: dict[str, dict[str, Any]] = {
    "default": env.db_url_config(
        env.str("DATABASE_URL", default="") or f"sqlite:///{OTA_DATA_DIR / 'db.sqlite3'}"
    )
}
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    # Without WAL and IMMEDIATE several writing processes meet "database is locked" by the thousand.
    DATABASES["default"]["OPTIONS"] = {
        "timeout": 20,
        "transaction_mode": "IMMEDIATE",
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA busy_timeout=20000;",
    }
else:
    DATABASES["default"]["CONN_MAX_AGE"] = 0
    DATABASES["default"]["CONN_HEALTH_CHECKS"] = True
    # What DATABASE_URL says itself wins.
    DATABASES["default"]["OPTIONS"] = postgresql_options(
        max(1, whole_number("OTA_DATABASE_POOL", 20)), whole_number("OTA_DATABASE_STATEMENT_SECONDS", 60)
    ) | DATABASES["default"].get("OPTIONS", {})
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

REDIS_URL = env.str("REDIS_URL", default="") or f"unix://{socket_path(OTA_DATA_DIR)}"
CACHES = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": REDIS_URL}}
CHANNEL_LAYERS: dict[str, dict[str, Any]] = {
    "default": {
        "BACKEND": "channels_redis.core.RedisChannelLayer",
        # A quiet page's socket waits 5 s at a time in Redis. redis-py gives up a read after 5 s unless told
        # otherwise, and with it the page's socket.
        "CONFIG": {"hosts": [{"address": REDIS_URL, "socket_timeout": 15}], "capacity": 1000},
    }
}

# Firmware files never travel through MEDIA_URL; devices fetch them by signed links only.
MEDIA_ROOT = OTA_DATA_DIR / "files"
OTA_STORAGE = env.str("OTA_STORAGE", default="folder")
OTA_S3_BUCKET = env.str("OTA_S3_BUCKET", default="")
# Where devices reach the store; empty, and they get every file from us.
OTA_S3_PUBLIC_ENDPOINT = env.str("OTA_S3_PUBLIC_ENDPOINT", default="")
_STORES: dict[str, dict[str, Any]] = {
    "folder": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "s3": {
        "BACKEND": "firmware.storage.ObjectStorage",
        "OPTIONS": {
            "bucket_name": OTA_S3_BUCKET,
            "endpoint_url": env.str("OTA_S3_ENDPOINT", default="") or None,
            "public_endpoint": OTA_S3_PUBLIC_ENDPOINT,
            "region_name": env.str("OTA_S3_REGION", default="us-east-1"),
            "access_key": env.str("OTA_S3_ACCESS_KEY", default="") or None,
            "secret_key": env.str("OTA_S3_SECRET_KEY", default="") or None,
            "addressing_style": env.str("OTA_S3_ADDRESSING", default="path"),
            "signature_version": env.str("OTA_S3_SIGNATURE", default="s3v4"),
            "file_overwrite": False,
            "max_memory_size": 1024 * 1024,
        },
    },
}
STORAGES: dict[str, dict[str, Any]] = {
    "default": _STORES.get(OTA_STORAGE, _STORES["folder"]),
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
FILE_UPLOAD_PERMISSIONS, FILE_UPLOAD_DIRECTORY_PERMISSIONS = 0o600, 0o700
STATIC_URL = "/static/"
STATIC_ROOT = OTA_DATA_DIR / "static"
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = DEBUG

# ---- people ------------------------------------------------------------------------------------------
AUTH_USER_MODEL = "accounts.User"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
# Argon2 costs memory, which is dear to whoever guesses. Older hashes are renewed at the next log-in.
PASSWORD_HASHERS = [
    f"django.contrib.auth.hashers.{name}"
    for name in ("Argon2PasswordHasher", "PBKDF2PasswordHasher", "ScryptPasswordHasher")
]
# Failed log-ins of a user from an address, after which the next are not looked at for a while; 0 is no limit.
OTA_LOGIN_FAILURES = whole_number("OTA_LOGIN_FAILURES", 10)
OTA_LOGIN_WAIT_MINUTES = whole_number("OTA_LOGIN_WAIT_MINUTES", 15, most=24 * 60)
SESSION_COOKIE_AGE = 3600 * whole_number("OTA_SESSION_HOURS", 24, most=24 * 365)
LOGIN_URL = "admin:login"
LOGIN_REDIRECT_URL = "admin:index"
LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English"), ("zh-hans", "简体中文")]
LOCALE_PATHS = [BASE_DIR / "locale"]
USE_I18N = True
USE_TZ = True
TIME_ZONE = "UTC"

# ---- background work ---------------------------------------------------------------------------------
CELERY_BROKER_URL = env.str(
    "OTA_CELERY_BROKER_URL",
    default="redis+socket://" + REDIS_URL.removeprefix("unix://")
    if REDIS_URL.startswith("unix://")
    else REDIS_URL,
)
CELERY_TIMEZONE = "UTC"
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_IGNORE_RESULT = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BEAT_SCHEDULER = "django_celery_beat.schedulers:DatabaseScheduler"
CELERY_TASK_DEFAULT_QUEUE = "default"
CELERY_TASK_ROUTES = {
    "campaigns.tasks.dispatch*": {"queue": "dispatch"},
    "campaigns.tasks.expand*": {"queue": "expand"},
}
# Only our own ticks are scheduled; Celery's result clean-up has nothing to clean.
CELERY_RESULT_EXPIRES = None

# ---- devices -----------------------------------------------------------------------------------------
# Empty: the gateway runs the embedded broker itself, and everybody reaches it on OTA_MQTT_PORT.
MQTT_URL = env.str("MQTT_URL", default="")
OTA_MQTT_PASSWORD = env.str("OTA_MQTT_PASSWORD", default="") or read_or_create(
    KEYS_DIR / "mqtt_password", lambda: secrets.token_urlsafe(32)
)
OTA_MQTT_TLS_PORT = port("OTA_MQTT_TLS_PORT", 0)
OTA_MQTT_TLS_CERT = env.str("OTA_MQTT_TLS_CERT", default="")
OTA_MQTT_TLS_KEY = env.str("OTA_MQTT_TLS_KEY", default="")
# Devices on HTTPS have no connection: they are online this long after a request.
OTA_HTTP_ONLINE_MINUTES = whole_number("OTA_HTTP_ONLINE_MINUTES", 10, most=24 * 60)
# Their version report is also answered with an update that became due while they were offline.
OTA_HTTP_OFFER_LATE = truth("OTA_HTTP_OFFER_LATE")
OTA_HTTP_TOKEN_DAYS = whole_number("OTA_HTTP_TOKEN_DAYS", 7, most=365)
# Wrong logins a minute of one address, before its next ones are not looked at; 0 is no limit.
OTA_HTTP_AUTH_FAILURES = whole_number("OTA_HTTP_AUTH_FAILURES", 100)

# ---- firmware ----------------------------------------------------------------------------------------
OTA_MAX_FIRMWARE_MB = whole_number("OTA_MAX_FIRMWARE_MB", 10)
OTA_MAX_FIRMWARE_FILES = whole_number("OTA_MAX_FIRMWARE_FILES", 100)
OTA_LINK_HOURS = whole_number("OTA_LINK_HOURS", 24)
# A batch of firmware that no device was updated with is refused, instead of asked about.
OTA_DEMAND_SUCCESS = truth("OTA_DEMAND_SUCCESS")
# The internal location of nginx that sends the files itself, for example /_firmware/
OTA_X_ACCEL_PREFIX = env.str("OTA_X_ACCEL_PREFIX", default="")

# ---- REST API and webhooks ---------------------------------------------------------------------------
# Requests a minute of each user; 0 is no limit.
OTA_API_RATE = whole_number("OTA_API_RATE", 1200)
# Wrong tokens a minute of one address, before its next ones are not looked up; 0 is no limit.
OTA_API_AUTH_FAILURES = whole_number("OTA_API_AUTH_FAILURES", 100)
# The longest that a token may work, for every role and however it is made.
OTA_TOKEN_MAX_DAYS = whole_number("OTA_TOKEN_MAX_DAYS", 365, most=3650)
# Webhooks may call addresses of private networks and of this machine.
OTA_WEBHOOK_ALLOW_PRIVATE = truth("OTA_WEBHOOK_ALLOW_PRIVATE")
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "otaplatform.api.auth.TokenAuthentication",
        "otaplatform.api.auth.BrowserAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["otaplatform.api.auth.RolePermission"],
    "DEFAULT_THROTTLE_CLASSES": ["otaplatform.api.auth.RateThrottle"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_METADATA_CLASS": None,
    "DEFAULT_SCHEMA_CLASS": "otaplatform.api.schema.Schema",
    "EXCEPTION_HANDLER": "otaplatform.api.errors.handle",
    "URL_FORMAT_OVERRIDE": None,
    "NUM_PROXIES": 1 if SECURE_PROXY_SSL_HEADER else 0,
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}
REST_KNOX = {"TOKEN_TTL": timedelta(days=90)}
SPECTACULAR_SETTINGS = {
    "TITLE": "OTA Platform",
    "DESCRIPTION": "Firmware updates by program. docs/api.md explains the manners of this API.",
    "VERSION": "v1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "COMPONENT_SPLIT_REQUEST": True,
    "ENUM_GENERATE_CHOICE_DESCRIPTION": False,
    "POSTPROCESSING_HOOKS": ["otaplatform.api.schema.finish"],
    "PATH_CONVERTER_OVERRIDES": {
        "product_key": {"type": "string", "pattern": "^[A-Za-z0-9]{1,20}$"},
        "device_name": {"type": "string", "pattern": "^[A-Za-z0-9_.:@-]{4,32}$"},
        "token_key": {"type": "string", "pattern": "^[0-9a-f]{15}$"},
        "number": {"type": "integer", "minimum": 0, "maximum": 10**18 - 1},
    },
}

DEMO = whole_number("OTA_DEMO", 0)

try:
    OTA_VERSION = version("otaplatform")
except PackageNotFoundError:
    import tomllib

    OTA_VERSION = tomllib.loads((BASE_DIR / "pyproject.toml").read_text())["project"]["version"]

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    # A load balancer that asks for a part that is away must not fill the log.
    "filters": {"asked": {"()": "otaplatform.logs.NotHealth"}},
    "loggers": {
        "django.request": {"filters": ["asked"]},
        # Its notes of every task are for whoever debugs Celery; set up here, because Celery leaves it to us.
        "celery": {"level": "WARNING"},
        "kombu": {"level": "WARNING"},
        # The web server's own handlers give way to ours.
        "uvicorn": {"handlers": [], "propagate": True},
        "uvicorn.error": {"handlers": [], "propagate": True},
    },
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
    "handlers": {"console": {"class": "otaplatform.logs.Console", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": env.str("OTA_LOG_LEVEL", default="INFO")},
}
