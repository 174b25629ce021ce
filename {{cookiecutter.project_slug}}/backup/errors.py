"""What backups raise. Every message is one line for people, and none holds a secret."""


class BackupError(Exception):
    """It could not be done; nothing is left half done."""


class Refused(BackupError):
    """What was asked for is wrong: a file that is no good backup, a folder that is in use."""


class BackupRunning(BackupError):
    """A backup is being made at this moment."""
