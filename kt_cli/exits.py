"""Error class -> exit code and the category that scripts may rely on: one table.

A class that is not in it takes its nearest base's row.

Not here: what the errors say (each carries its own words and next step).
"""

from __future__ import annotations

from typing import Final

from kt_net import errors
from kt_net.errors import KtError

OK: Final = 0
#: Something that is nobody's but ours.
INTERNAL: Final = 70

#: 2 as typer has it for usage; the others in groups: 1x cluster access, 2x cluster objects, 3x this machine, 4x while connected,
#: 5x what `doctor` found.
EXITS: Final[dict[type[KtError], int]] = {
    errors.KtError: 1,
    errors.UsageFault: 2,
    errors.NoKubeconfig: 10,
    errors.ApiUnreachable: 11,
    errors.CertificateRejected: 12,
    errors.CredentialsRejected: 13,
    errors.PermissionMissing: 14,
    errors.ObjectMissing: 20,
    errors.AdmissionRefused: 21,
    errors.ImageUnavailable: 22,
    errors.ShadowFailed: 23,
    errors.RequestRefused: 24,
    errors.AlreadyThere: 25,
    errors.Exchanged: 26,
    errors.RecordRefused: 27,
    errors.PrivilegeMissing: 30,
    errors.TunUnavailable: 31,
    errors.RouteConflict: 32,
    errors.HostRefused: 33,
    errors.AddressInUse: 34,
    errors.AlreadyConnected: 35,
    errors.NotConnected: 36,
    errors.TunnelLost: 40,
    errors.RemoteProtocolError: 41,
    errors.GivenBack: 42,
    errors.ProblemsFound: 50,
    errors.LocalProtocolError: INTERNAL,
    # As shells have it.
    errors.ProgramRefused: 126,
    errors.ProgramMissing: 127,
}


def exit_code(error: KtError) -> int:
    """The row of the error's class, or of its nearest base."""
    for base in type(error).__mro__:
        if base in EXITS:
            return EXITS[base]
    return INTERNAL
