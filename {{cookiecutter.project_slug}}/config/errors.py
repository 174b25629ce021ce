"""What is raised when settings are wrong."""


class ConfigError(Exception):
    """Settings, or the app folder, are wrong. `problems` holds one line for each thing, naming file and key."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
