"""Is there money for it? What one training, and all of a day, may cost by their estimates (F-117)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import and_, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.errors import InvalidInput
from libs.common.jobs import ACTIVE, JobKind
from services.gateway.database import one_at_a_time, utcnow
from services.gateway.jobs.tables import Job
from services.gateway.settings import GatewaySettings

DAY = timedelta(days=1)


class BudgetExceeded(InvalidInput):
    """This costs more than is allowed"""

    code = "budget_exceeded"
    suggested_actions = ("Choose another provider or fewer epochs.", "Ask an administrator to raise the limit.")


@dataclass(frozen=True)
class Limits:
    """Of one training, and of all within a day; None is no limit."""

    one: float | None = None
    day: float | None = None


NO_LIMITS = Limits()


def limits_of(settings: GatewaySettings) -> Limits:
    """The limits of an installation."""
    return Limits(one=settings.max_training_cost, day=settings.daily_training_budget)


async def check(session: AsyncSession, cost: float, limits: Limits) -> None:
    """Raises BudgetExceeded, naming the setting, when a training of this estimated cost may not begin now."""
    if limits.one is not None and cost > limits.one:
        raise BudgetExceeded(
            f"the training is estimated at {cost:.2f}; one may cost {limits.one:.2f} (MAX_TRAINING_COST)",
            estimated_cost=cost,
            limit=limits.one,
        )
    if limits.day is None:
        return
    await one_at_a_time(session, "budget", "training")
    spent = await spent_within_a_day(session)
    if spent + cost > limits.day:
        raise BudgetExceeded(
            f"the training is estimated at {cost:.2f} and {spent:.2f} of the day's {limits.day:.2f} "
            "(DAILY_TRAINING_BUDGET) is taken",
            estimated_cost=cost,
            spent=round(spent, 4),
            limit=limits.day,
        )


async def spent_within_a_day(session: AsyncSession) -> float:
    """The estimates of trainings that wait or run, and of those that began within the last 24 hours."""
    counts = or_(Job.status.in_(ACTIVE), and_(Job.started_at.is_not(None), Job.created_at > utcnow() - DAY))
    statement = select(func.coalesce(func.sum(Job.estimated_cost), 0.0)).where(
        Job.kind == JobKind.training.value, counts
    )
    return float(await session.scalar(statement) or 0.0)
