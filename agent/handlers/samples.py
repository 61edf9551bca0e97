"""The one call that a collector may make."""

from agent.handlers.objects import Routes
from agent.sampler import Sampler
from agent.wire.bus import Message, answering
from agent.wire.samples import GET, SamplesPage, SamplesRequest


def routes(sampler: Sampler) -> Routes:
    """See agent.wire.samples."""

    async def on_get(request: SamplesRequest, message: Message) -> SamplesPage:
        return await sampler.page(request.after)

    return {GET.name: answering(GET, on_get)}
