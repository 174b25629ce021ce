"""What is raised when settings are wrong."""


class ConfigError(Exception):
    """Settings, or the app folder, are wrong. One line for each thing, naming file and key."""
