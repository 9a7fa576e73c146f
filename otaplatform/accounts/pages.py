"""The context of a page of our own: `console/page.html` in the frame of the console."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest


def page_context(request: HttpRequest, title: str, *, nav: str = "", **extra: Any) -> dict[str, Any]:
    """Context of a page that extends `console/page.html`.

    `nav` is the key of the navigation item to mark, where the address alone does not tell.
    """
    return {**admin.site.each_context(request), "title": title, "nav": nav, **extra}
