"""Addresses on the web that the handouts link to, from the variables of the environment."""

import os

from ci.errors import UsageError

# What a handout links to, and the variable with its address; without an address, there is no link.
VARIABLES = {"colab": "COURSE_COLAB", "report": "COURSE_REPORT"}


def addresses() -> dict[str, str]:
    """The addresses that are set, in which `{name}` is a lesson and `{language}` a language.

    Raises UsageError for an address that is not one of the web.
    """
    found = {key: os.environ.get(variable, "").strip() for key, variable in VARIABLES.items()}
    for key, address in found.items():
        if address and not address.startswith(("https://", "http://")):
            raise UsageError(f"{VARIABLES[key]}={address}: must begin with https://")
    return {key: address for key, address in found.items() if address}
