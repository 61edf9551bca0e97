"""The APIs that one controller serves. Imported late: a tool that needs one slice does not load all of them."""

from controller.http.op import Service


def services() -> tuple[Service, ...]:
    """Every service, in the order of the catalog."""
    from controller.compute.api.routes import SERVICE as COMPUTE
    from controller.identity.api.routes import SERVICE as IDENTITY
    from controller.image.api.routes import SERVICE as IMAGE
    from controller.network.api.routes import SERVICE as NETWORK
    from controller.operator.api.routes import SERVICE as OPERATOR
    from controller.volume.api.routes import SERVICE as VOLUME

    return (IDENTITY, COMPUTE, IMAGE, NETWORK, VOLUME, OPERATOR)
