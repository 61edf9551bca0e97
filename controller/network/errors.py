"""What can be wrong with a network request, under the names and with the sentences that Neutron's clients know.

The class's name is what the error envelope shows as `type`; Terraform, Tempest and people's scripts match on it.
"""

from controller.errors import Conflict, Invalid, NotFound, PreconditionFailed


class InvalidInput(Invalid):
    """Attributes that do not fit together, or with what exists."""

    def __init__(self, sentence: str) -> None:
        super().__init__(f"Invalid input for operation: {sentence}.")


class BadRequest(Invalid):
    """Neutron's words for what routers and floating IPs refuse."""

    def __init__(self, noun: str, sentence: str) -> None:
        super().__init__(f"Bad {noun} request: {sentence}.")


def bad_value(attribute: str, reason: str) -> Invalid:
    """One attribute whose value cannot be."""
    return Invalid(f"Invalid input for {attribute}. Reason: {reason}.")


class RevisionNumberConstraintFailed(PreconditionFailed):
    """If-Match named another revision."""

    def __init__(self, expected: int, current: int) -> None:
        super().__init__(f"Constrained to {expected}, but current revision is {current}")


# Networks.


class NetworkNotFound(NotFound):
    """No such network, or not for this caller."""

    def __init__(self, network_id: str) -> None:
        super().__init__(f"Network {network_id} could not be found.")


class NetworkInUse(Conflict):
    """Ports are on it."""

    def __init__(self, network_id: str) -> None:
        super().__init__(
            f"Unable to complete operation on network {network_id}. "
            "There are one or more ports still in use on the network."
        )


class NetworkMTUSubnetConflict(Conflict):
    """Packets of a subnet's family may not be that small."""

    def __init__(self, cidr: str, mtu: int, least: int) -> None:
        super().__init__(f"Subnet {cidr} needs an MTU of at least {least}, and the network's would be {mtu}.")


class InvalidSharedSetting(Conflict):
    """Others use what would no longer be shared."""

    def __init__(self, network_id: str) -> None:
        super().__init__(
            f"Unable to reconfigure sharing settings for network {network_id}. Multiple tenants are using it."
        )


class ExternalNetworkInUse(Conflict):
    """Routers have their gateways there."""

    def __init__(self, network_id: str) -> None:
        super().__init__(
            f"External network {network_id} cannot be updated to be made non-external, "
            "since it has existing gateway ports."
        )


class FlatNetworkInUse(Conflict):
    """A physical network carries one flat network."""

    def __init__(self, physical_network: str) -> None:
        super().__init__(f"Unable to create the flat network. Physical network {physical_network} is in use.")


class VlanIdInUse(Conflict):
    """Another network has this VLAN."""

    def __init__(self, physical_network: str, vlan_id: int) -> None:
        super().__init__(
            f"Unable to create the network. The VLAN {vlan_id} on physical network {physical_network} is in use."
        )


class TunnelIdInUse(Conflict):
    """Another network has this VXLAN identifier."""

    def __init__(self, tunnel_id: int) -> None:
        super().__init__(f"Unable to create the network. The tunnel ID {tunnel_id} is in use.")


# Subnets.


class SubnetNotFound(NotFound):
    """No such subnet, or not for this caller."""

    def __init__(self, subnet_id: str) -> None:
        super().__init__(f"Subnet {subnet_id} could not be found.")


class SubnetInUse(Conflict):
    """Ports have addresses of it."""

    def __init__(
        self, subnet_id: str, reason: str = "One or more ports have an IP allocation from this subnet"
    ) -> None:
        super().__init__(f"Unable to complete operation on subnet {subnet_id}: {reason}.")


class GatewayIpInUse(Conflict):
    """The gateway's address is a port's, mostly a router's."""

    def __init__(self, address: str, port_id: str) -> None:
        super().__init__(f"Current gateway ip {address} already in use by port {port_id}. Unable to update.")


class GatewayConflictWithAllocationPools(Conflict):
    """The gateway would be given to some port."""

    def __init__(self, address: str, pool: str) -> None:
        super().__init__(f"Gateway ip {address} conflicts with allocation pool {pool}.")


class OverlappingAllocationPools(Conflict):
    """Two pools share addresses."""

    def __init__(self, first: str, second: str, cidr: str) -> None:
        super().__init__(f"Found overlapping allocation pools: {first} {second} for subnet {cidr}.")


class OutOfBoundsAllocationPool(Invalid):
    """A pool has addresses that no port may have."""

    def __init__(self, pool: str, cidr: str) -> None:
        super().__init__(f"The allocation pool {pool} spans beyond the subnet cidr {cidr}.")


class InvalidAllocationPool(Invalid):
    """A pool that is none."""

    def __init__(self, pool: str) -> None:
        super().__init__(f"The allocation pool {pool} is not valid.")


# Ports.


class PortNotFound(NotFound):
    """No such port, or not for this caller."""

    def __init__(self, port_id: str) -> None:
        super().__init__(f"Port {port_id} could not be found.")


class PortInUse(Conflict):
    """Something is attached to it."""

    def __init__(self, port_id: str, network_id: str, device_id: str) -> None:
        super().__init__(
            f"Unable to complete operation on port {port_id} for network {network_id}. "
            f"Port already has an attached device {device_id}."
        )


class ServicePortInUse(Conflict):
    """A port that has its own way to go: with its router, floating IP or network."""

    def __init__(self, port_id: str, device_owner: str) -> None:
        super().__init__(
            f"Port {port_id} cannot be deleted directly via the port API: has device owner {device_owner}."
        )


class PortBound(Conflict):
    """What a bound port may not change."""

    def __init__(self, port_id: str, what: str) -> None:
        super().__init__(f"Unable to complete operation on port {port_id}, port is already bound: {what}.")


class IpAddressGenerationFailure(Conflict):
    """A subnet's pools are used up."""

    def __init__(self, network_id: str) -> None:
        super().__init__(f"No more IP addresses available on network {network_id}.")


class IpAddressAlreadyAllocated(Conflict):
    """Somebody has that address."""

    def __init__(self, address: str, subnet_id: str) -> None:
        super().__init__(f"IP address {address} already allocated in subnet {subnet_id}")


class InvalidIpForNetwork(Invalid):
    """An address of none of its subnets."""

    def __init__(self, address: str) -> None:
        super().__init__(f"IP address {address} is not a valid IP for any of the subnets on the specified network.")


class InvalidIpForSubnet(Invalid):
    """An address outside of the subnet, or its network or broadcast address."""

    def __init__(self, address: str) -> None:
        super().__init__(f"IP address {address} is not a valid IP for the specified subnet.")


class MacAddressInUse(Conflict):
    """Another port of the network has that MAC."""

    def __init__(self, network_id: str, mac: str) -> None:
        super().__init__(f"Unable to complete operation for network {network_id}. The mac address {mac} is in use.")


class PortSecurityPortHasSecurityGroup(Conflict):
    """Groups need port security."""

    def __init__(self) -> None:
        super().__init__(
            "Port has security group associated. "
            "Cannot disable port security or IP address until security group is removed."
        )


class PortSecurityAndIPRequiredForSecurityGroups(Conflict):
    """Groups need port security."""

    def __init__(self) -> None:
        super().__init__(
            "Port security must be enabled and port must have an IP address in order to use security groups."
        )


class AddressPairAndPortSecurityRequired(Conflict):
    """Address pairs are exceptions from port security."""

    def __init__(self) -> None:
        super().__init__("Port Security must be enabled in order to have allowed address pairs on a port.")


class AddressPairsExhausted(Invalid):
    """Too many pairs."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"The number of allowed address pairs exceeds the maximum {limit}.")


class DuplicateAddressPairInRequest(Invalid):
    """The same pair twice."""

    def __init__(self, mac: str, address: str) -> None:
        super().__init__(f"Request contains duplicate address pair: mac_address {mac} ip_address {address}.")


# Routers.


class RouterNotFound(NotFound):
    """No such router, or not for this caller."""

    def __init__(self, router_id: str) -> None:
        super().__init__(f"Router {router_id} could not be found")


class RouterInUse(Conflict):
    """It still has interfaces."""

    def __init__(self, router_id: str) -> None:
        super().__init__(f"Router {router_id} still has ports")


class RouterInterfaceNotFound(NotFound):
    """The port is no interface of the router."""

    def __init__(self, router_id: str, port_id: str) -> None:
        super().__init__(f"Router {router_id} does not have an interface with id {port_id}")


class RouterInterfaceNotFoundForSubnet(NotFound):
    """No interface of the router is on the subnet."""

    def __init__(self, router_id: str, subnet_id: str) -> None:
        super().__init__(f"Router {router_id} has no interface on subnet {subnet_id}")


class RouterInterfaceInUseByFloatingIP(Conflict):
    """Floating IPs are reached through it."""

    def __init__(self, router_id: str, subnet_id: str) -> None:
        super().__init__(
            f"Router interface for subnet {subnet_id} on router {router_id} cannot be deleted, "
            "as it is required by one or more floating IPs."
        )


class RouterInterfaceInUseByRoute(Conflict):
    """An extra route goes through it."""

    def __init__(self, router_id: str, subnet_id: str) -> None:
        super().__init__(
            f"Router interface for subnet {subnet_id} on router {router_id} cannot be deleted, "
            "as it is required by one or more routes."
        )


class RouterExternalGatewayInUseByFloatingIp(Conflict):
    """Floating IPs are reached through it."""

    def __init__(self, router_id: str, network_id: str) -> None:
        super().__init__(
            f"Gateway cannot be updated for router {router_id}, since a gateway to external network {network_id} "
            "is required by one or more floating IPs."
        )


class SubnetMismatchForPort(Conflict):
    """The interface is on another subnet than was said."""

    def __init__(self, port_id: str, subnet_id: str) -> None:
        super().__init__(f"Subnet on port {port_id} does not match the requested subnet {subnet_id}.")


class InvalidRoutes(Invalid):
    """Extra routes that the router cannot follow."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"Invalid format for routes: {reason}.")


class RoutesExhausted(Invalid):
    """Too many extra routes."""

    def __init__(self, router_id: str, limit: int) -> None:
        super().__init__(
            f"Unable to complete operation for {router_id}. The number of routes exceeds the maximum {limit}."
        )


# Floating IPs.


class FloatingIPNotFound(NotFound):
    """No such floating IP, or not for this caller."""

    def __init__(self, floating_ip_id: str) -> None:
        super().__init__(f"Floating IP {floating_ip_id} could not be found")


class ExternalGatewayForFloatingIPNotFound(NotFound):
    """No router joins the port's subnet and the external network."""

    def __init__(self, network_id: str, subnet_id: str, port_id: str) -> None:
        super().__init__(
            f"External network {network_id} is not reachable from subnet {subnet_id}. "
            f"Therefore, cannot associate Port {port_id} with a Floating IP."
        )


class FloatingIPPortAlreadyAssociated(Conflict):
    """The fixed address has a floating IP already."""

    def __init__(self, address: str, floating_ip_id: str, port_id: str, fixed: str, network_id: str) -> None:
        super().__init__(
            f"Cannot associate floating IP {address} ({floating_ip_id}) with port {port_id} using fixed IP {fixed}, "
            f"as that fixed IP already has a floating IP on external network {network_id}."
        )


# Security groups.


class SecurityGroupNotFound(NotFound):
    """No such group, or not for this caller."""

    def __init__(self, group_id: str) -> None:
        super().__init__(f"Security group {group_id} does not exist")


class SecurityGroupRuleNotFound(NotFound):
    """No such rule, or not for this caller."""

    def __init__(self, rule_id: str) -> None:
        super().__init__(f"Security group rule {rule_id} does not exist")


class SecurityGroupInUse(Conflict):
    """Ports have it."""

    def __init__(self, group_id: str) -> None:
        super().__init__(f"Security Group {group_id} in use.")


class SecurityGroupCannotRemoveDefault(Conflict):
    """Every project has one."""

    def __init__(self) -> None:
        super().__init__("Insufficient rights for removing default security group.")


class SecurityGroupCannotUpdateDefault(Conflict):
    """Its name is how it is found."""

    def __init__(self) -> None:
        super().__init__("Updating default security group not allowed.")


class SecurityGroupDefaultAlreadyExists(Conflict):
    """The name is taken in every project."""

    def __init__(self) -> None:
        super().__init__("Default security group already exists.")


class SecurityGroupRuleExists(Conflict):
    """The same rule, whatever it is called."""

    def __init__(self, rule_id: str) -> None:
        super().__init__(f"Security group rule already exists. Rule id is {rule_id}.")


class SecurityGroupNotSingleGroupRules(Invalid):
    """A bulk of rules for several groups."""

    def __init__(self) -> None:
        super().__init__("Only allowed to update rules for one security profile at a time")


class SecurityGroupProtocolRequiredWithPorts(Invalid):
    """Ports of what?"""

    def __init__(self) -> None:
        super().__init__("Must also specify protocol if port range is given.")


class SecurityGroupInvalidPortRange(Invalid):
    """Half a range, or one upside down."""

    def __init__(self) -> None:
        super().__init__("For TCP/UDP protocols, port_range_min must be <= port_range_max")


class SecurityGroupInvalidPortValue(Invalid):
    """No port number."""

    def __init__(self, port: object) -> None:
        super().__init__(f"Invalid value for port {port}")


class SecurityGroupInvalidIcmpValue(Invalid):
    """No ICMP type or code."""

    def __init__(self, field: str, attribute: str, value: object) -> None:
        super().__init__(f"Invalid value for ICMP {field} ({attribute}) {value}. It must be 0 to 255.")


class SecurityGroupMissingIcmpType(Invalid):
    """A code of no type."""

    def __init__(self, value: object) -> None:
        super().__init__(f"ICMP code (port-range-max) {value} is provided but ICMP type (port-range-min) is missing.")


class SecurityGroupRuleInvalidProtocol(Invalid):
    """Neither a known name nor a number."""

    def __init__(self, protocol: object, names: str) -> None:
        super().__init__(
            f"Security group rule protocol {protocol} not supported. "
            f"Only protocol values [{names}] and integer representations [0 to 255] are supported."
        )


class SecurityGroupEthertypeConflictWithProtocol(Invalid):
    """A protocol of the other IP version."""

    def __init__(self, ethertype: str, protocol: str) -> None:
        super().__init__(f"Invalid ethertype {ethertype} for protocol {protocol}.")


class SecurityGroupRemoteGroupAndRemoteIpPrefix(Invalid):
    """Two remotes."""

    def __init__(self) -> None:
        super().__init__("Only remote_ip_prefix or remote_group_id may be provided.")


class SecurityGroupRuleParameterConflict(Invalid):
    """An address of the other IP version."""

    def __init__(self, ethertype: str, cidr: str) -> None:
        super().__init__(f"Conflicting value ethertype {ethertype} for CIDR {cidr}")
