"""The API's beat ticks. Each is safe to overlap itself."""

from celery import shared_task
from django.utils import timezone
from knox.models import AuthToken

from campaigns import chosen
from otaplatform.api import idempotency
from otaplatform.api.webhooks.collect import collect
from otaplatform.api.webhooks.send import forget, send_due

# Each tick and its interval in seconds.
TICKS = {"otaplatform.api.tasks.webhooks": 5, "otaplatform.api.tasks.clean_up": 3600}


@shared_task
def webhooks() -> None:
    """Queue deliveries for what happened, and send what is due."""
    collect()
    send_due()


@shared_task
def clean_up() -> None:
    """Remove kept answers, old deliveries, expired tokens, and lists of devices that nobody launched."""
    idempotency.forget()
    forget()
    AuthToken.objects.filter(expiry__lt=timezone.now()).delete()
    chosen.forget_old()
