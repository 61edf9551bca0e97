"""What operators watch of a controller. It says nothing of tenants."""

from agent.wire.exposition import metric
from controller.cloud import Cloud
from controller.http.app import App


def page(cloud: Cloud, app: App) -> str:
    """The page now."""
    parts = (
        metric(
            "hostler_api_requests_total",
            "Requests answered, by service and kind of status.",
            [
                ({"service": service, "status": f"{kind}xx"}, count)
                for (service, kind), count in sorted(app.answered.items())
            ],
            "counter",
        ),
        metric("hostler_sagas", "Sagas in this controller's hands.", [({}, cloud.sagas.running)]),
        metric("hostler_sagas_stuck", "Sagas that wait for an operator.", [({}, cloud.sagas.recovery.stuck)]),
        metric("hostler_hosts_up", "Hosts that are alive.", [({}, len(cloud.hosts.up()))]),
        metric(
            "hostler_task_failures",
            "Failures in a row of a reconciler.",
            [({"task": task.name}, task.failures) for task in cloud.tasks.statuses()],
        ),
    )
    return "".join(parts)
