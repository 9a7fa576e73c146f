"""The running API against its own schema: generated requests, right and wrong ones."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from knox.models import AuthToken

from otaplatform.accounts.roles import ADMINISTRATOR
from tests.factories import CampaignFactory, DeviceFactory, FirmwareFactory, ProductFactory, TaskFactory

SECONDS = int(os.environ.get("OTA_SCHEMATHESIS_SECONDS", "110"))


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_generated_requests_find_nothing(
    live_server: Any, settings: Any, person: Any, tmp_path: Path
) -> None:
    settings.OTA_API_RATE = 0
    user = person(ADMINISTRATOR)
    product = ProductFactory.create(account=user.account)
    campaign = CampaignFactory.create(firmware=FirmwareFactory.create(product=product))
    TaskFactory.create(campaign=campaign, device=DeviceFactory.create(product=product, online=True))
    token = AuthToken.objects.create(user=user)[1]
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("st")),
            "run",
            f"{live_server.url}/api/v1/schema/",
            f"--header=Authorization: Token {token}",
            "--checks=all",
            # What is well formed may still not fit the state of things (a device that does not exist).
            "--exclude-checks=positive_data_acceptance",
            # It would revoke the token that the run itself uses.
            "--exclude-operation-id=token_destroy",
            f"--max-time={SECONDS}",
            "--seed=1",
            "--generation-database=none",
            "--no-color",
            "--continue-on-failure",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=SECONDS * 3,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-20000:] + done.stderr[-2000:]
