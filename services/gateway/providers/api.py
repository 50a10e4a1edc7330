"""What can be asked about providers? Which there are, and what a training would take and cost before it begins."""

from __future__ import annotations

from libs.common.errors import PlatformError
from libs.common.events import TrainingOptions
from libs.common.providers import PROVIDERS, provider_of
from services.gateway import workers
from services.gateway.accounts.current import CurrentUser
from services.gateway.jobs import budget, starting
from services.gateway.jobs.schemas import TrainingRequest
from services.gateway.parts import SharedParts
from services.gateway.providers.availability import availability
from services.gateway.providers.schemas import EstimateOut, ProviderList, ProviderOut
from services.gateway.routing import problems, router

provider_router = router("/providers", "providers")
estimate_router = router("/training", "training")


@provider_router.get("", operation_id="list_providers", summary="Who can make a voice, and what it takes")
async def list_providers(_: CurrentUser, parts: SharedParts) -> ProviderList:
    """What each provider is good at, what recordings it needs, time and price, and what is missing to use it here."""
    alive = await workers.announced(parts.connected)
    return ProviderList(items=[ProviderOut.of(each, availability(each, alive)) for each in PROVIDERS.values()])


@estimate_router.post(
    "/estimate",
    operation_id="estimate_training",
    summary="What would this training take and cost?",
    responses=problems(404),
)
async def estimate_training(body: TrainingRequest, caller: CurrentUser, parts: SharedParts) -> EstimateOut:
    """The body of a training request; nothing is started. `problems` says what a start would be refused for."""
    alive = await workers.announced(parts.connected)
    settings, found = parts.settings, []
    preset = starting.preset_of(body, alive)
    options = TrainingOptions.model_validate(body.options.model_dump(exclude={"preset"}) | {"preset": preset})
    async with parts.database.read() as session:
        dataset = await starting.find_dataset(session, caller, body.dataset_id, body.by_name)
        found_there = await starting.recordings_of(session, dataset)
        expected = await starting.estimate_training(session, dataset, options, alive, settings.gpu_hour_price)
        try:
            await starting.plan_training(session, body, dataset, alive, settings.gpu_hour_price)
            await budget.check(session, expected.cost, budget.limits_of(settings))
        except PlatformError as error:
            found.append(error.detail)
    return EstimateOut.of(
        expected,
        provider=provider_of(preset).name,
        preset=preset,
        problems=found,
        recordings=len(found_there.inputs),
        speech_seconds=found_there.seconds,
    )
