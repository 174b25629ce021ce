"""Who a command runs as."""

import os
import pwd

from config.appdir import AppDir


def become_service_user(folder: AppDir) -> None:
    """Root becomes whoever owns the folder `data`, which is who the service runs as; others stay who they are.

    What a command makes then belongs to the service, and a link that the service has planted cannot make root write
    elsewhere.
    """
    try:
        owner = folder.data.stat()
    except OSError:
        return  # There is no such folder yet: `appdir make` is root's work.
    if os.geteuid() == 0 != owner.st_uid:
        # Who it really is, for the audit log.
        os.environ.setdefault("SUDO_USER", "root")
        try:
            os.initgroups(pwd.getpwuid(owner.st_uid).pw_name, owner.st_gid)
        except KeyError:
            os.setgroups([owner.st_gid])
        os.setgid(owner.st_gid)
        os.setuid(owner.st_uid)
