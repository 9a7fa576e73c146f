"""After a launch: ask the workers to begin now. The ticks remain the promise, so nothing here may fail."""

import logging

from campaigns.models import Campaign
from campaigns.tasks import launch_soon

logger = logging.getLogger(__name__)


def launched(campaign: Campaign) -> Campaign:
    """Wake the workers for a committed launch, and hand the campaign on."""
    try:
        launch_soon()
    except Exception:
        logger.warning("the workers could not be woken; the next tick starts campaign %s", campaign.pk)
    return campaign
