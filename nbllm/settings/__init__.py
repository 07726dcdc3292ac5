"""Settings: what can be set, and where each value came from. Cheap to import: files are read by code that is loaded late."""

from nbllm.settings.budgets import BudgetSettings
from nbllm.settings.call_options import CallOptions, EmbedOptions
from nbllm.settings.endpoint import Endpoint
from nbllm.settings.option import Option
from nbllm.settings.settings import Explained, Settings, default_home
from nbllm.settings.tables import CALL_OPTIONS, SETTABLE, SETTINGS, check_call_options

__all__ = [
    "CALL_OPTIONS",
    "SETTABLE",
    "SETTINGS",
    "BudgetSettings",
    "CallOptions",
    "EmbedOptions",
    "Endpoint",
    "Explained",
    "Option",
    "Settings",
    "check_call_options",
    "default_home",
]
