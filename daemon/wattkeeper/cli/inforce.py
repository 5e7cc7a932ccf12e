"""The policy and the settings that a command goes by, from files."""

from pathlib import Path

from wattkeeper.config.policy import load_policies
from wattkeeper.config.settings import DEFAULT_PATH, Settings, load_settings
from wattkeeper.core.policy import Policy
from wattkeeper.errors import WattkeeperError
from wattkeeper.system.trust import TO_READ


def policy_and_settings(policy: Path | None, config: Path | None) -> tuple[Policy, Settings]:
    """The policy in a file or folder, else the settings'; and the settings, which are their defaults where only a
    policy is named.

    Raises WattkeeperError where neither is named and none is installed, or one of them cannot be used.
    """
    if not policy and not config and not DEFAULT_PATH.exists():
        raise WattkeeperError(f"which policy? There is no {DEFAULT_PATH} here: name one with --policy or --config")
    found = load_settings(config or DEFAULT_PATH, TO_READ) if config or (policy is None) else Settings()
    rules, _ = load_policies(policy or found.policies, TO_READ)
    return rules, found
