"""The one error of this package. It knows where a setting came from, so that its text can say so.

It is outside of the StorageError and RegistryError trees on purpose: no client ever meets it, it only stops a start.
"""


class ConfigError(Exception):
    """path: dotted, as in the file, or "" for the whole; origin: "config.yml:7", a variable's name, or ""."""

    def __init__(self, path: str, problem: str, origin: str = "") -> None:
        self.path, self.problem, self.origin = path, problem, origin
        super().__init__((f"{path}: " if path else "") + problem + (f" ({origin})" if origin else ""))
