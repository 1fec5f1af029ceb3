"""What schemathesis does not know by itself: how the broker's media types are written."""

import json

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def lines(_context, value):
    values = value if isinstance(value, list) else [value]
    return "".join(json.dumps(one) + "\n" for one in values).encode()


@schemathesis.hook
def before_call(_context, case, _options):
    """Nobody comes to end a long poll, so it is a short one."""
    wait = (case.query or {}).get("wait")
    if str(wait).isdigit() and int(wait) > 200:
        case.query["wait"] = 200
