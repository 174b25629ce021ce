"""Who a command runs as."""

import os
import pwd

from config.appdir import AppDir


def become_service_user(folder: AppDir) -> None:
    """Root becomes whoever owns the folder `data`, which is who the service runs as; others stay who they are.

    What a command makes then belongs to the service, which else could not write it. And the service, which may fill its
    folders with links, cannot make root write behind them.
    """
    try:
        owner = folder.data.stat()
    except OSError:
        return  # There is no such folder yet: `appdir make` is root's work.
    if os.geteuid() == 0 != owner.st_uid:
        try:
            os.initgroups(pwd.getpwuid(owner.st_uid).pw_name, owner.st_gid)
        except KeyError:
            os.setgroups([owner.st_gid])
        os.setgid(owner.st_gid)
        os.setuid(owner.st_uid)
