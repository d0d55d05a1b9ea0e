"""Old names of distribution's, rewritten in the tree before it is read."""

from .tree import Scalar, Table


def rewrite(root: Table) -> list[str]:
    """Returns warnings."""
    return [*_loglevel(root), *_validation_enabled(root)]


def _loglevel(root: Table) -> list[str]:
    """`loglevel` counts where `log.level` says nothing."""
    old = root.entries.pop("loglevel", None)
    if not isinstance(old, Scalar) or old.is_null:
        return []
    log = root.entries.setdefault("log", Table(origin=old.origin))
    if isinstance(log, Scalar) and log.is_null:
        log = root.entries["log"] = Table(origin=old.origin)
    if isinstance(log, Table) and "level" not in log.entries:
        log.entries["level"] = old
        return [f"loglevel is deprecated: use log.level ({old.origin})"]
    return [f"loglevel has no effect beside log.level ({old.origin})"]


def _validation_enabled(root: Table) -> list[str]:
    """`validation.enabled: true` beats `disabled`, and false says nothing: so distribution reads the pair."""
    validation = root.entries.get("validation")
    if not isinstance(validation, Table):
        return []
    enabled = validation.entries.pop("enabled", None)
    if not isinstance(enabled, Scalar) or enabled.is_null:
        return []
    if enabled.value is True:
        validation.entries.pop("disabled", None)
    return [f"validation.enabled is deprecated: validation is on unless validation.disabled is true ({enabled.origin})"]
