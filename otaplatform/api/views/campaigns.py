"""Campaigns: preview, launch, look, steer; their tasks and the events of those."""

from typing import Any

from django.db.models import QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _
from rest_framework.request import Request
from rest_framework.response import Response

from campaigns import services
from campaigns.models import Campaign, CampaignCounter, UpdateTask
from campaigns.services import Plan
from campaigns.states import OPEN
from campaigns.why import Surroundings
from devices.models import Device
from firmware.models import Firmware
from otaplatform.api.base import Filters, Resource, one
from otaplatform.api.errors import ApiError
from otaplatform.api.parsers import LONG_JSON
from otaplatform.api.serializers import campaigns as shapes


class CampaignResource(Resource):
    """Validations and batch updates of the account."""

    permissions = {
        "list": "campaigns.view_campaign",
        "retrieve": "campaigns.view_campaign",
        "tasks": "campaigns.view_updatetask",
        "create": "campaigns.add_campaign",
        "preview": "campaigns.add_campaign",
        "cancel": "campaigns.change_campaign",
        "pause": "campaigns.change_campaign",
        "resume": "campaigns.change_campaign",
        "stop_matching": "campaigns.change_campaign",
        "retry": "campaigns.change_campaign",
    }
    inputs = {
        "create": shapes.CampaignNew,
        "preview": shapes.CampaignNew,
        "cancel": shapes.CancelChoice,
        "retry": shapes.RetryChoice,
    }
    outputs = {
        "list": (200, shapes.CampaignShown),
        "retrieve": (200, shapes.CampaignShown),
        "tasks": (200, shapes.TaskShown),
        "create": (201, shapes.CampaignShown),
        "preview": (200, shapes.PreviewShown),
        "cancel": (200, shapes.CampaignShown),
        "pause": (200, shapes.CampaignShown),
        "resume": (200, shapes.CampaignShown),
        "stop_matching": (200, shapes.CampaignShown),
        "retry": (200, shapes.Restarted),
    }
    filters = {"list": shapes.CampaignFilters, "tasks": shapes.TaskFilters}
    json_limits = {"create": LONG_JSON, "preview": LONG_JSON}

    def get_queryset(self) -> "QuerySet[Campaign]":
        return Campaign.objects.of(self.account).select_related("firmware", "product", "created_by")

    def campaign(self) -> Campaign:
        campaign: Campaign = one(self.get_queryset(), pk=self.kwargs["pk"])
        return campaign

    def list(self, request: Request) -> Response:
        """Campaigns, newest first."""
        asked, rows = self.asked(), self.get_queryset()
        columns = {
            "firmware": "firmware",
            "product": "product__product_key",
            "kind": "kind",
            "status": "status",
        }
        rows = rows.filter(**{columns[name]: value for name, value in asked.items() if name in columns})
        page = self.page(rows)
        totals = CampaignCounter.objects.totals([campaign.pk for campaign in page.rows])
        return self.list_of(page, totals=totals)

    def _plan(self) -> tuple[Firmware, Plan]:
        data: dict[str, Any] = self.read()
        firmware = Firmware.objects.of(self.account).filter(pk=data.pop("firmware")).first()
        if firmware is None:
            problems = {"firmware": [("does_not_exist", _("The account has no such firmware."))]}
            raise ApiError("invalid", problems=problems)
        return firmware, Plan(**data)

    def create(self, request: Request) -> Response:
        """Launch (or schedule) a batch update."""
        firmware, plan = self._plan()
        campaign = services.launch_batch(firmware, plan, actor=self.actor)
        return self.show(campaign)

    def preview(self, request: Request) -> Response:
        """What a launch with this body would find; nothing is changed."""
        planned = services.check_plan(*self._plan())
        counts = planned.preview.as_json()
        busy = counts.pop("busy_by_campaign")
        excluded = list(planned.excluded.items())
        shown = [
            {
                "device_name": name,
                "code": code,
                "message": services.exclusion_message(name, code).messages[0],
            }
            for name, code in excluded[: shapes.EXCLUDED_SHOWN]
        ]
        return self.show(
            {
                **counts,
                "busy_by_campaign": [{"campaign": pk, "devices": devices} for pk, devices in busy.items()],
                "needs_accept_unproven": planned.needs_acceptance,
                "excluded_count": len(excluded),
                "excluded": shown,
            }
        )

    def retrieve(self, request: Request, pk: int) -> Response:
        """One campaign with its counts."""
        return self.show(self.campaign())

    def cancel(self, request: Request, pk: int) -> Response:
        """Cancel the campaign, or only its tasks in `states`. A device that is updating may still finish."""
        campaign = self.campaign()
        states = [state.upper() for state in self.read().get("states", [])]
        services.cancel_campaign(campaign, statuses=states or sorted(OPEN), actor=self.actor)
        return self.show(self.campaign())

    def pause(self, request: Request, pk: int) -> Response:
        """Push nothing more until resumed; what is updating goes on."""
        services.pause(self.campaign(), actor=self.actor)
        return self.show(self.campaign())

    def resume(self, request: Request, pk: int) -> Response:
        """Push again."""
        services.resume(self.campaign(), actor=self.actor)
        return self.show(self.campaign())

    def stop_matching(self, request: Request, pk: int) -> Response:
        """Let a dynamic batch take in no further devices; those waiting stay."""
        services.stop_matching(self.campaign(), actor=self.actor)
        return self.show(self.campaign())

    def retry(self, request: Request, pk: int) -> Response:
        """Start all failed tasks over, or those of one reason."""
        campaign = self.campaign()
        restarted = services.update_again(campaign, reason=self.read().get("reason"), actor=self.actor)
        return self.show({"restarted": restarted})

    def tasks(self, request: Request, pk: int) -> Response:
        """The campaign's tasks, by status and then in the order in which they were made."""
        campaign, asked = self.campaign(), self.asked()
        rows = UpdateTask.objects.filter(campaign=campaign).select_related("campaign", "device")
        if status := asked.get("status"):
            rows = rows.filter(status=status.upper())
        if reason := asked.get("reason"):
            rows = rows.filter(reason=reason)
        if name := asked.get("device_name"):
            devices = Device.objects.filter(product=campaign.product_id, name=name)
            rows = rows.filter(device__in=devices.values("pk"))
        page = self.page(rows, "status", "id")
        now = timezone.now()
        return self.list_of(page, around=Surroundings.of(page.rows, now), now=now)


class TaskResource(Resource):
    """One device in one campaign."""

    permissions = {
        "retrieve": "campaigns.view_updatetask",
        "events": "campaigns.view_taskevent",
        "cancel": "campaigns.change_updatetask",
        "retry": "campaigns.change_updatetask",
    }
    outputs = {
        "retrieve": (200, shapes.TaskShown),
        "events": (200, shapes.EventShown),
        "cancel": (200, shapes.TaskShown),
        "retry": (200, shapes.TaskShown),
    }
    filters = {"events": Filters}

    def get_queryset(self) -> "QuerySet[UpdateTask]":
        return UpdateTask.objects.of(self.account).select_related("campaign", "device")

    def task(self) -> UpdateTask:
        task: UpdateTask = one(self.get_queryset(), pk=self.kwargs["pk"])
        return task

    def _show_task(self) -> Response:
        task, now = self.task(), timezone.now()
        return self.show(task, around=Surroundings.of([task], now), now=now)

    def retrieve(self, request: Request, pk: int) -> Response:
        """One task, and one sentence on why its device is not updating yet."""
        return self._show_task()

    def events(self, request: Request, pk: int) -> Response:
        """Everything that happened to the task, oldest first."""
        return self.list_of(self.page(self.task().events.all(), "id"))

    def cancel(self, request: Request, pk: int) -> Response:
        """Cancel an unfinished task."""
        task = self.task()
        if not services.cancel_tasks(task.campaign, [task.pk], actor=self.actor):
            raise ApiError("is_over")
        return self._show_task()

    def retry(self, request: Request, pk: int) -> Response:
        """Start a failed or canceled task over; 409 `conflict` while its device has another one."""
        task = self.task()
        if not services.update_again(task.campaign, task_ids=[task.pk], actor=self.actor):
            message = _("The task has not failed, or its device is busy with another one.")
            raise ApiError("conflict", message)
        return self._show_task()
