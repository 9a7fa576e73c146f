"""What every page of the console needs in its template."""

from django import template

register = template.Library()


@register.filter
def number(value: int) -> str:
    """12345 as 12,345, alike in both languages."""
    return f"{value:,}"
