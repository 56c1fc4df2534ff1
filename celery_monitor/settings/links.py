"""Links to other systems."""

from typing import Annotated

from pydantic import AfterValidator, Field

from celery_monitor.core.links import MAX_LENGTH, problem
from celery_monitor.settings.section import Text


def _checked(template: str) -> str:
    wrong = problem(template)
    if wrong is not None:
        raise ValueError(wrong)
    return template


Title = Annotated[Text, Field(min_length=1, max_length=60)]
LinkTemplate = Annotated[str, Field(min_length=1, max_length=MAX_LENGTH), AfterValidator(_checked)]
