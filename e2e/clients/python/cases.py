"""The JSON lines that all client programs share: see ../README.md."""

import json
import sys


def unhex(text):
    return None if text is None else bytes.fromhex(text)


def hexed(content):
    return None if content is None else content.hex()


def load(path):
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            case = json.loads(line)
            headers = [(name, unhex(value)) for name, value in case["h"]]
            yield unhex(case["k"]), unhex(case["v"]), case["t"], headers


def show(topic, offset, timestamp, key, value, headers):
    print(json.dumps({
        "topic": topic,
        "offset": offset,
        "t": timestamp,
        "k": hexed(key),
        "v": hexed(value),
        "h": [[name, hexed(content)] for name, content in headers],
    }))


def ranges(words):
    for word in words:
        topic, start, end = word.rsplit(":", 2)
        yield topic, int(start), int(end)


def run(commands):
    command, *arguments = sys.argv[1:]
    commands[command](*arguments)
