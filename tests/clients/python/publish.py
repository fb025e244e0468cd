"""Makes one call of the official publisher for Python and prints what came of it, as JSON.

Reads from stdin: {"client": {options of pusher.Pusher}, "call": method, "arguments": {...}}.
Prints {"result": ...}, or {"error": class, "message": text} for an error of the publisher.
"""

import json
import sys

import pusher


def main() -> None:
    request = json.load(sys.stdin)
    client = pusher.Pusher(**request["client"])
    try:
        answer = {"result": getattr(client, request["call"])(**request["arguments"])}
    except pusher.errors.PusherError as error:
        answer = {"error": type(error).__name__, "message": str(error)}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
