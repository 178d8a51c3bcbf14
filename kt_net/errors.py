"""One tree of errors, three branches, decided by whose fault it is.

- `LocalProtocolError`: our caller asked for something illegal.
- `RemoteProtocolError`: a peer (a program's packets, the agent, the API server) sent something illegal.
- `EnvironmentFault`: the machine or the cluster is not in a state in which we can work.

The three and their root refuse to be instantiated; only leaves are raised. Every error says what happened (`str(error)`), and may
carry `why` (the cause as seen) and `next_step` (what the user can do). `kt_cli.exits` maps classes to exit codes.
"""

from __future__ import annotations


class KtError(Exception):
    """Root of the tree.

    Args:
        what: one sentence without a final dot: what could not be done.
        why: the cause as it was seen, or "".
        next_step: what the user can do about it, or "" for the default of the class.
    """

    #: What to do next when the raiser knows nothing better.
    default_next_step = ""

    def __init__(self, what: str, *, why: str = "", next_step: str = "") -> None:
        if type(self) in _ABSTRACT:
            raise TypeError(f"{type(self).__name__} is a branch of the tree; raise one of its leaves")
        super().__init__(what)
        self.what = what
        self.why = why
        self.next_step = next_step or self.default_next_step


class LocalProtocolError(KtError):
    """Our caller asked for something illegal."""

    default_next_step = "run it again with --debug, and report what it prints"


class RemoteProtocolError(KtError):
    """A peer sent something illegal."""

    default_next_step = "run it again with --debug, and report what it prints"


class EnvironmentFault(KtError):
    """The machine or the cluster is not in a state in which we can work."""


_ABSTRACT = frozenset({KtError, LocalProtocolError, RemoteProtocolError, EnvironmentFault})


# -- our caller ------------------------------------------------------------------------------------------------


class UsageFault(LocalProtocolError):
    """A flag or an argument makes no sense."""

    default_next_step = "run the command with --help"


class StreamClosed(LocalProtocolError):
    """Something was asked of a stream or flow that has ended or was never there."""


class LimitExceeded(LocalProtocolError):
    """A named cap of our own was reached (streams, sessions, bytes buffered)."""


# -- a peer ------------------------------------------------------------------------------------------------------


class MalformedPacket(RemoteProtocolError):
    """Bytes that are no packet of the kind they claim to be."""


class ParameterProblem(MalformedPacket):
    """An IPv6 packet with something in its headers that its sender is to be told of (RFC 4443 section 3.4).

    Attributes:
        code: 0 a wrong value, 1 an unknown next header, 2 an unknown option.
        pointer: where, in octets from the start of the packet.
    """

    def __init__(self, text: str, *, code: int = 0, pointer: int = 0, **words: str) -> None:
        super().__init__(text, **words)
        self.code = code
        self.pointer = pointer


class MalformedMessage(RemoteProtocolError):
    """Bytes that are no DNS message, or one that we do not take apart."""


class TunnelProtocolError(RemoteProtocolError):
    """The other end of the tunnel broke the tunnel's protocol (lane, mux, request)."""


class CarrierProtocolError(RemoteProtocolError):
    """The API server broke the websocket or the port-forward channel protocol."""


class HelperProtocolError(RemoteProtocolError):
    """The host helper and its client do not understand each other."""


# -- the machine -------------------------------------------------------------------------------------------------


class TunUnavailable(EnvironmentFault):
    """No TUN device can be had here."""

    default_next_step = (
        "in a container, pass the device in (--device /dev/net/tun --cap-add NET_ADMIN); on a host: modprobe tun"
    )


class PrivilegeMissing(EnvironmentFault):
    """Root is needed for the host helper and cannot be had."""

    default_next_step = "run: sudo ktctl connect"


class AlreadyConnected(EnvironmentFault):
    """Another ktctl connect of this user is running, under the same name."""

    default_next_step = "run: ktctl status, or ktctl disconnect; for a second cluster, give this connection a --name"


class NotConnected(EnvironmentFault):
    """Nothing is connected."""

    default_next_step = "run: sudo ktctl connect"


class RouteConflict(EnvironmentFault):
    """A range of the cluster overlaps a route that this machine already has."""

    default_next_step = "end the connection that routes it, or change its ranges"


class HostRefused(EnvironmentFault):
    """The kernel or the file system refused a step of the plan for this machine."""

    default_next_step = "run: ktctl disconnect, then try again with --debug"


class HostChanged(HostRefused):
    """This machine is not as it was a moment ago, as the plan has it: another program, or another connection, was quicker."""

    default_next_step = "run it again"


class AddressInUse(EnvironmentFault):
    """A local port that we were asked to listen on is taken."""

    default_next_step = "choose another local port"


class ProgramMissing(EnvironmentFault):
    """There is no program of the name that was to be run."""

    default_next_step = "check its name, and PATH"


class ProgramRefused(EnvironmentFault):
    """The program cannot be run."""

    default_next_step = "check its permissions: ls -l"


class ProblemsFound(EnvironmentFault):
    """`doctor` found something that keeps a connection from working; its findings say what."""

    default_next_step = "do what stands behind each problem, then run: ktctl doctor"


# -- the cluster -------------------------------------------------------------------------------------------------


class NoKubeconfig(EnvironmentFault):
    """There is no kubeconfig, or it cannot be used."""

    default_next_step = "give one with --kubeconfig FILE or set KUBECONFIG"


class ApiUnreachable(EnvironmentFault):
    """The API server does not answer."""

    default_next_step = "check that the cluster runs and that a VPN it needs is up: kubectl version"


class CertificateRejected(EnvironmentFault):
    """The API server's certificate does not fit the kubeconfig."""

    default_next_step = "check certificate-authority and server in the kubeconfig"


class CredentialsRejected(EnvironmentFault):
    """The API server does not accept who we say we are."""

    default_next_step = "log in again (as for kubectl), then retry"


class PermissionMissing(EnvironmentFault):
    """The account may not do what is needed; `what` names verb and resource."""

    default_next_step = 'ask an administrator for a Role that allows this (README, "Rights in the cluster")'


class ObjectMissing(EnvironmentFault):
    """A named object is not in the cluster."""

    default_next_step = "check the name, and name another namespace with --namespace"


class AdmissionRefused(EnvironmentFault):
    """An admission policy or a quota refused one of our objects."""

    default_next_step = "ask whoever set that policy or quota, or use another namespace: --namespace NAME"


class ImageUnavailable(EnvironmentFault):
    """The node cannot get the image of the shadow pod."""

    default_next_step = "name an image that the nodes can pull: --image NAME"


class ShadowFailed(EnvironmentFault):
    """The shadow pod did not come up, or went away."""

    default_next_step = "look at its events: kubectl describe pod -l control-by=kt"


class TunnelLost(EnvironmentFault):
    """The connection to the agent is gone."""

    default_next_step = "run the command again"


class RequestRefused(EnvironmentFault):
    """The API server answered a request with an error that has no class of its own."""

    default_next_step = "run it again with --debug"


class AlreadyThere(RequestRefused):
    """An object of that name is in the cluster, and it is not replaced."""

    default_next_step = "choose another name, or another namespace: --namespace NAME"


class Conflict(RequestRefused):
    """An object has changed since it was read, or is another one: somebody was quicker."""

    default_next_step = "run it again"


class Exchanged(EnvironmentFault):
    """Somebody has exchanged the object already; `why` says who and since when."""

    default_next_step = "ask them to end it, or take it back: ktctl recover NAME"


class GivenBack(EnvironmentFault):
    """An object that was exchanged has been given back by somebody else: another person, or whoever took us for dead."""

    default_next_step = "run the command again"


class RecordRefused(EnvironmentFault):
    """What an object's annotation says about how it was before makes no sense, or is of a newer ktctl."""

    default_next_step = (
        "look at the annotation; with a newer ktctl, or by hand, put the object right and remove the annotation"
    )
