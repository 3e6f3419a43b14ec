"""How the programs in Python print their checks."""

import json


def check(name, result):
    print(json.dumps({"check": name, "result": result}, default=repr), flush=True)


def refused(name, action, errors):
    """Prints the SQLSTATE with which the server refuses an action; `errors` are the client's class."""
    try:
        action()
    except errors as error:
        cause = error if hasattr(error, "sqlstate") else getattr(error, "orig", None) or error.__cause__
        check(name, cause.sqlstate)
    else:
        check(name, "not refused")
