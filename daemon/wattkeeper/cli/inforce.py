"""The policy, the settings and the time that a command goes by."""

from datetime import datetime, tzinfo
from pathlib import Path

from wattkeeper.cli.moment import unix
from wattkeeper.config.policy import load_policies
from wattkeeper.config.settings import DEFAULT_PATH, Settings, settings_file, settings_or_defaults
from wattkeeper.core.policy import Policy
from wattkeeper.errors import WattkeeperError
from wattkeeper.model import Conditions
from wattkeeper.system.clock import SystemClock
from wattkeeper.system.trust import TO_READ
from wattkeeper.system.zones import machine_zone


def policy_and_settings(policy: Path | None, config: Path | None) -> tuple[Policy, Settings]:
    """The policy in a file or folder, else the settings'; and the settings, which are their defaults where only a
    policy is named.

    Raises WattkeeperError where neither is named and none is installed, or one of them cannot be used.
    """
    if not policy and settings_file(config) is None:
        raise WattkeeperError(f"which policy? There is no {DEFAULT_PATH} here: name one with --policy or --config")
    found = Settings() if policy and not config else settings_or_defaults(config, TO_READ)
    rules, _ = load_policies(policy or found.policies, TO_READ)
    return rules, found


def site_zone(settings: Settings) -> tzinfo:
    """The zone of schedules that name none, and of times that people write: the settings', else this machine's."""
    return settings.time_zone or machine_zone()


def unix_or_now(at: datetime | None, zone: tzinfo) -> float:
    """The Unix time of a moment in that zone, or of now where none was asked for."""
    return unix(at, zone) if at else SystemClock().wall()


def conditions_at(at: datetime | None, node: str, settings: Settings) -> Conditions:
    """What a decision for that moment (None: now) on that node depends on, by those settings."""
    zone = site_zone(settings)
    return Conditions(unix_or_now(at, zone), node, observe=settings.mode == "observe", zone=zone)
