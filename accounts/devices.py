"""The name of a device, from its User-Agent."""

import ua_parser

UNKNOWN = "Unknown device"
LONGEST_USER_AGENT = 512  # the header may have 8 kB and is parsed for every event


def device_name(user_agent: str) -> str:
    """Return something like "Firefox on Linux", or a tool's own name, or "Unknown device"."""
    user_agent = user_agent[:LONGEST_USER_AGENT]
    result = ua_parser.parse(user_agent)
    browser = result.user_agent.family if result.user_agent else ""
    system = result.os.family if result.os else ""
    if browser and system:
        name = f"{browser} on {system}"
    else:
        name = browser or system or user_agent.partition("/")[0].strip()
    return name[:100] or UNKNOWN
