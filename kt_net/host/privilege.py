"""Who the user is, and being no more than that user.

`sudo ktctl connect` is common: then the helper is started as root, and everything that parses foreign bytes goes on as the user who
called sudo.

Not here: the helper.
"""

from __future__ import annotations

import getpass
import os
import pwd

#: What sudo drops by default, and what credential plugins and proxies may need.
WANTED = ("KUBECONFIG", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "AWS_PROFILE", "GOOGLE_APPLICATION_CREDENTIALS")


def user_name() -> str:
    """Login name of the person, also behind sudo."""
    name = os.environ.get("SUDO_USER")
    if name:
        return name
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def become_invoker() -> list[str]:
    """Behind sudo: become the user who called it, for good. Which of the variables that may be needed sudo did not pass on."""
    number = os.environ.get("SUDO_UID", "")
    if os.geteuid() != 0 or not number.isdigit() or number == "0":
        return []
    entry = pwd.getpwuid(int(number))
    os.setgroups(os.getgrouplist(entry.pw_name, entry.pw_gid))
    os.setresgid(entry.pw_gid, entry.pw_gid, entry.pw_gid)
    os.setresuid(entry.pw_uid, entry.pw_uid, entry.pw_uid)
    os.environ["HOME"] = entry.pw_dir
    return [name for name in WANTED if name not in os.environ]
